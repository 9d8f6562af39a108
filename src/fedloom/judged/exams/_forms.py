"""What exams have in common: questions of one turn from a file, a grade for each answer, refusals told by lists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fedloom.base.mean import Mean
from fedloom.base.plugin import AtLeast, lookup
from fedloom.contracts.evaluation import Answered, Exam, GradeRequest, Metric, Question, Sampling
from fedloom.contracts.examples import chat
from fedloom.contracts.model import Prediction
from fedloom.judged.exams._files import Wanted, instructions, requests
from fedloom.judged.exams._prompts import GRADE, RUBRIC, asked, section
from fedloom.judged.exams._verdicts import graded

__all__ = ["GradedFile", "QuestionFile", "RequestFile"]


@dataclass(frozen=True, kw_only=True)
class QuestionFile(Exam):
    """Questions of one turn from a local file."""

    version: ClassVar[int] = 2
    layout: ClassVar[str]
    """What the file holds."""
    fetch: ClassVar[str]
    """Where it comes from."""
    temperature: ClassVar[float] = 0.7

    path: str = ""
    max_new_tokens: AtLeast = 1024

    @property
    def wanted(self) -> Wanted:
        """What the file must be."""
        return Wanted(f"{self.name}: path", self.layout, self.fetch)

    def sampling(self, question: Question) -> Sampling:
        """Return the published temperature."""
        return Sampling(max_new_tokens=self.max_new_tokens, temperature=self.temperature)


@dataclass(frozen=True, kw_only=True)
class GradedFile(QuestionFile):
    """Instructions of a file, each answer graded once."""

    score: ClassVar[str]
    task: ClassVar[str] = f"Grade an assistant's answer. {RUBRIC}"
    mark: ClassVar[str] = "instruction"
    """What the judge is told that the question is."""
    beside_reference: ClassVar[bool] = False

    def questions(self) -> Sequence[Question]:
        """Return the instructions in file order; MissingFileError, ConfigError or DataError for another layout."""
        return instructions(self.path, self.wanted)

    def judging(self) -> Sampling:
        """Return the published temperature of the judge."""
        return Sampling(max_new_tokens=1024, temperature=0.2)

    def requests(self, answered: Answered, other: Answered | None) -> Sequence[GradeRequest]:
        """Return one request, which holds the reference where the answer is graded beside it."""
        question = answered.question
        beside = [section("reference", question.references[0])] if self.beside_reference else []
        shown = section(self.mark, question.turns[0]), *beside, section("answer", answered.answers[0])
        return [GradeRequest(self.score, asked(self.task, *shown, GRADE))]

    def scores(self, answered: Answered, verdicts: Mapping[str, str]) -> Mapping[str, Mean]:
        """Return the grade."""
        return graded(verdicts, self.score)


@dataclass(frozen=True, kw_only=True)
class RequestFile(QuestionFile):
    """Requests of a file that are all to be refused, or all not to be."""

    needs_judge: ClassVar[bool] = False
    end: ClassVar[str] = ""
    """What is put behind each request."""
    score: ClassVar[str]
    reference: ClassVar[str]
    """An answer that does the right thing: the refusal metrics ask whether answer and reference agree in refusing."""

    def questions(self) -> Sequence[Question]:
        """Return the requests in file order; MissingFileError, ConfigError or DataError for another layout."""
        return requests(self.path, self.wanted, end=self.end)

    def scores(self, answered: Answered, verdicts: Mapping[str, str]) -> Mapping[str, Mean]:
        """Return both rates by lists."""
        example = chat(answered.question.turns[0], self.reference)
        prediction = Prediction(answered.answers[0], 0)
        rules = {"anchored": "refusal", "anywhere": "refusal_anywhere"}
        return {f"{self.score}_{rule}": lookup(Metric, name)()(example, prediction) for rule, name in rules.items()}
