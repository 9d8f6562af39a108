"""Held-out instructions, each answer graded from 1 to 10 by a judge that sees a reference.

Source: "Ref-GPT4" of FedLLM-Bench (https://arxiv.org/abs/2406.04845) for its Aya test set: 20 instructions in each of
eight languages, four rules (the language of the question; what was asked for; comprehensible in facts and meaning;
grammatical and fluent), a mean per language, then the mean over languages. Recipe: temperature 0.7, at most 1,024 new
tokens; the judge at 0.2.

Scores: `against_reference`, 1 to 10, and `unparsed`; the driver adds the mean per language and the mean over languages.

Deviations: prompts written anew; a verdict without a grade is counted apart; sampling as published for the other two
test sets, the one for Aya is not stated.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from fedloom.base.errors import DataError
from fedloom.base.mean import Mean
from fedloom.base.plugin import AtLeast, plugin
from fedloom.contracts.evaluation import Answered, Exam, GradeRequest, Question, Sampling
from fedloom.judged.exams import UNPARSED
from fedloom.judged.exams._files import Wanted
from fedloom.judged.exams._items import LAYOUTS, items
from fedloom.judged.exams._prompts import GRADE, asked, section
from fedloom.judged.exams._verdicts import counted, grade, unparsed

__all__ = ["RefJudge"]

_WANTED = Wanted(
    "ref_judge: path", f"{LAYOUTS}, each with a reference", "fetch the Aya test set of FedLLM-Bench or write your own"
)
_RULES = (
    "Grade an assistant's answer beside a reference that a person wrote. Four rules count alike. One: the answer is in "
    "the language of the instruction. Two: it does what the instruction asks for. Three: it can be understood, and its "
    "facts and its meaning are right. Four: its grammar is correct and it reads fluently. An answer may differ from "
    "the reference in wording and still be the best one possible."
)


@plugin("ref_judge")
class RefJudge(Exam):
    """Instructions of a local file, graded beside their references."""

    version: ClassVar[int] = 2

    path: str = ""
    """File of instructions with references."""
    max_new_tokens: AtLeast = 1024

    def questions(self) -> Sequence[Question]:
        """Return the instructions in file order; raises as `quality_judge`, and DataError without a reference."""
        found = items(self.path, _WANTED)
        bare = [question.id for question in found if not question.references]
        if bare:
            raise DataError(
                f"{_WANTED.key}: {self.path}: {len(bare)} of {len(found)} records have no reference, first record "
                f"{bare[0]}; allowed are records with one: add it, or take the exam 'quality_judge', which shows none."
            )
        return found

    def sampling(self, question: Question) -> Sampling:
        """Return the published temperature."""
        return Sampling(max_new_tokens=self.max_new_tokens, temperature=0.7)

    def judging(self) -> Sampling:
        """Return the published temperature of the judge."""
        return Sampling(max_new_tokens=1024, temperature=0.2)

    def requests(self, answered: Answered, other: Answered | None) -> Sequence[GradeRequest]:
        """Return one request, which holds the reference."""
        question = answered.question
        shown = (
            section("instruction", question.turns[0]),
            section("reference", question.references[0]),
            section("answer", answered.answers[0]),
        )
        return [GradeRequest("against_reference", asked(_RULES, *shown, GRADE))]

    def scores(self, answered: Answered, verdicts: Mapping[str, str]) -> Mapping[str, Mean]:
        """Return the grade."""
        found = grade(verdicts["against_reference"])
        return {"against_reference": counted(found), UNPARSED: unparsed(found)}
