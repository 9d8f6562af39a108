"""ROUGE-1, ROUGE-2 and ROUGE-L: overlap of words, of pairs of them, and the longest common subsequence, as F.

Source: Lin, 2004, https://aclanthology.org/W04-1013, section 2, and of ROUGE-L section 3.1, eq. 2 to 4 with beta 1,
through the library `rouge-score` (extra `text`). F is the harmonic mean of precision and recall.

Deviations: F in place of recall, as the library reports it; no stemming; words of any script where the library knows
ASCII only, so that figures of ASCII texts equal the library's.
"""

from collections.abc import Sequence
from typing import ClassVar

from fedloom.base.extras import library
from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfReference
from fedloom.text.words import words

__all__ = ["Rouge1", "Rouge2", "RougeL"]


class _Words:
    """The words of `fedloom.text.words` as the library asks for them; its own know ASCII only."""

    def tokenize(self, text: str) -> Sequence[str]:
        return words(text)


class Rouge(OfReference):
    """The F of one kind of ROUGE, 0 to 1."""

    needs = ("rouge_score",)
    kind: ClassVar[str]
    """What the library calls it."""
    least: ClassVar[int] = 1
    """Words of a reference below which it weighs nothing."""

    def score(self, text: str, reference: str) -> float | None:
        """Return the F; None if the reference has too few words."""
        if len(words(reference)) < self.least:
            return None
        scorer = library("rouge_score.rouge_scorer").RougeScorer([self.kind], tokenizer=_Words())
        return float(scorer.score(reference, text)[self.kind].fmeasure)


@plugin("rouge_1")
class Rouge1(Rouge):
    """Overlap of the words."""

    kind = "rouge1"


@plugin("rouge_2")
class Rouge2(Rouge):
    """Overlap of the pairs of neighbouring words."""

    kind = "rouge2"
    least = 2


@plugin("rouge_l")
class RougeL(Rouge):
    """The longest common subsequence of words; the whole text is one sentence."""

    kind = "rougeL"
