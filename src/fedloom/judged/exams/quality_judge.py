"""Held-out instructions, each answer graded from 1 to 10 by a judge that sees no reference.

Source: "Ref-GPT4" of FedLLM-Bench (https://arxiv.org/abs/2406.04845) for its chatbot and WildChat test sets, which in
the released code shows the judge no reference; hence the name here. Recipe: temperature 0.7, at most 1,024 new tokens;
the judge at 0.2, a general rubric. `ref_judge` is the one with a reference.

Scores: `quality`, 1 to 10, and `unparsed`.

Deviations: prompts written anew; a verdict without a grade is counted apart.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from fedloom.base.mean import Mean
from fedloom.base.plugin import AtLeast, plugin
from fedloom.contracts.evaluation import Answered, Exam, GradeRequest, Question, Sampling
from fedloom.judged.exams import UNPARSED
from fedloom.judged.exams._files import Wanted
from fedloom.judged.exams._items import LAYOUTS, items
from fedloom.judged.exams._prompts import GRADE, RUBRIC, asked, section
from fedloom.judged.exams._verdicts import counted, grade, unparsed

__all__ = ["QualityJudge"]

_WANTED = Wanted("quality_judge: path", LAYOUTS, "fetch a test set of FedLLM-Bench or write your own")


@plugin("quality_judge")
class QualityJudge(Exam):
    """Instructions of a local file, graded without a reference."""

    version: ClassVar[int] = 2

    path: str = ""
    """File of instructions; a reference in it is shown to nobody."""
    max_new_tokens: AtLeast = 1024

    def questions(self) -> Sequence[Question]:
        """Return the instructions in file order; MissingFileError, ConfigError or DataError for another layout."""
        return items(self.path, _WANTED)

    def sampling(self, question: Question) -> Sampling:
        """Return the published temperature."""
        return Sampling(max_new_tokens=self.max_new_tokens, temperature=0.7)

    def judging(self) -> Sampling:
        """Return the published temperature of the judge."""
        return Sampling(max_new_tokens=1024, temperature=0.2)

    def requests(self, answered: Answered, other: Answered | None) -> Sequence[GradeRequest]:
        """Return one request."""
        shown = section("instruction", answered.question.turns[0]), section("answer", answered.answers[0])
        return [GradeRequest("quality", asked(f"Grade an assistant's answer. {RUBRIC}", *shown, GRADE))]

    def scores(self, answered: Answered, verdicts: Mapping[str, str]) -> Mapping[str, Mean]:
        """Return the grade."""
        found = grade(verdicts["quality"])
        return {"quality": counted(found), UNPARSED: unparsed(found)}
