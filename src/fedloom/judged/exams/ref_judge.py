"""Held-out instructions, each answer graded from 1 to 10 by a judge that sees a reference.

Source: "Ref-GPT4" of FedLLM-Bench (https://arxiv.org/abs/2406.04845) for its Aya test set: 20 instructions in each of
eight languages, four rules (the language of the question; what was asked for; comprehensible in facts and meaning;
grammatical and fluent), a mean per language, then the mean over languages. Recipe: temperature 0.7, at most 1,024 new
tokens; the judge at 0.2.

Scores: `against_reference`, 1 to 10, and `unparsed`; the driver adds the mean per language and the mean over languages.

Deviations: prompts written anew; a verdict without a grade is counted apart; sampling as published for the other two
test sets, the one for Aya is not stated.
"""

from collections.abc import Sequence

from fedloom.base.errors import DataError
from fedloom.base.plugin import plugin
from fedloom.contracts.evaluation import Question
from fedloom.judged.exams._files import LAYOUTS, instructions
from fedloom.judged.exams._forms import GradedFile
from fedloom.judged.exams._prompts import TEXTS

__all__ = ["RefJudge"]


@plugin("ref_judge")
class RefJudge(GradedFile):
    """Instructions of a local file, graded beside their references."""

    layout = f"{LAYOUTS}, each with a reference"
    fetch = "fetch the Aya test set of FedLLM-Bench or write your own"
    score = "against_reference"
    task = TEXTS["ref_judge"]["task"]
    beside_reference = True

    def questions(self) -> Sequence[Question]:
        """Return the instructions in file order; raises as `quality_judge`, and DataError without a reference."""
        found = instructions(self.path, self.wanted)
        bare = [question.id for question in found if not question.references]
        if bare:
            raise DataError(
                f"{self.wanted.key}: {self.path}: {len(bare)} of {len(found)} records have no reference, first record "
                f"{bare[0]}; allowed are records with one: add it, or take the exam 'quality_judge', which shows none."
            )
        return found
