"""Vicuna's 80 questions, one turn each, every answer graded from 1 to 10 by a judge.

Source: Chiang et al., 2023, https://lmsys.org/blog/2023-03-30-vicuna/; the questions are FastChat's
(https://github.com/lm-sys/FastChat, `fastchat/llm_judge/data/vicuna_bench`), which are not shipped: ten each generic,
knowledge, roleplay, common-sense, fermi, counterfactual and writing, seven coding, three math. Recipe as OpenFedLLM's
(https://arxiv.org/abs/2402.06954): temperature 0.7, at most 2,048 new tokens; the judge at 0.2, an explanation, then
the grade.

Scores: `grade`, 1 to 10, and `unparsed`.

Deviations: prompts written anew; the published mean counts a verdict without a grade as -1, here it is counted apart
and scored nowhere.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from fedloom.base.mean import Mean
from fedloom.base.plugin import AtLeast, plugin
from fedloom.contracts.evaluation import Answered, Exam, GradeRequest, Question, Sampling
from fedloom.judged.exams import UNPARSED
from fedloom.judged.exams._files import Record, Wanted, numbered
from fedloom.judged.exams._prompts import GRADE, RUBRIC, asked, section
from fedloom.judged.exams._verdicts import counted, grade, unparsed

__all__ = ["Vicuna"]

_WANTED = Wanted(
    "vicuna: path",
    "JSON Lines of objects with question_id, category and turns (one text) or, in older copies, text",
    "fetch fastchat/llm_judge/data/vicuna_bench/question.jsonl from github.com/lm-sys/FastChat",
)


@plugin("vicuna")
class Vicuna(Exam):
    """Vicuna's questions from a local copy."""

    version: ClassVar[int] = 2

    path: str = ""
    """File of questions in FastChat's layout."""
    max_new_tokens: AtLeast = 2048

    def questions(self) -> Sequence[Question]:
        """Return the questions in file order; MissingFileError, ConfigError or DataError as `mt_bench`."""
        return [self._question(record) for record in numbered(self.path, _WANTED)]

    def _question(self, record: Record) -> Question:
        match record:
            case {"question_id": int() | str() as name, "category": str() as category, "turns": [str() as text]}:
                return Question(str(name), (text,), category)
            case {"question_id": int() | str() as name, "category": str() as category, "text": str() as text}:
                return Question(str(name), (text,), category)
            case _:
                raise _WANTED.wrong(self.path, f"an object with {', '.join(sorted(record))}, turns of another form")

    def sampling(self, question: Question) -> Sampling:
        """Return the published temperature."""
        return Sampling(max_new_tokens=self.max_new_tokens, temperature=0.7)

    def judging(self) -> Sampling:
        """Return the published temperature of the judge."""
        return Sampling(max_new_tokens=1024, temperature=0.2)

    def requests(self, answered: Answered, other: Answered | None) -> Sequence[GradeRequest]:
        """Return one request."""
        shown = section("question", answered.question.turns[0]), section("answer", answered.answers[0])
        return [GradeRequest("grade", asked(f"Grade an assistant's answer. {RUBRIC}", *shown, GRADE))]

    def scores(self, answered: Answered, verdicts: Mapping[str, str]) -> Mapping[str, Mean]:
        """Return the grade."""
        found = grade(verdicts["grade"])
        return {"grade": counted(found), UNPARSED: unparsed(found)}
