"""chrF of one answer: F of n-grams of 1 to 6 characters, recall counting twice as much as precision.

Source: Popovic, 2015, https://aclanthology.org/W15-3049, section 2 with beta 2, as `sacrebleu.sentence_chrf` computes
it (extra `text`); white space does not count. It needs no words, so it suits all scripts alike.
"""

from fedloom.base.extras import library
from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfReference

__all__ = ["Chrf"]


@plugin("chrf")
class Chrf(OfReference):
    """chrF2 of a sentence, 0 to 100."""

    needs = ("sacrebleu",)

    high = 100.0

    def score(self, text: str, reference: str) -> float:
        """Return the score."""
        return min(100.0, float(library("sacrebleu").sentence_chrf(text, [reference]).score))
