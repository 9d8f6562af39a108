"""chrF2 of all answers together: counts of character n-grams are added up before the F is taken.

Source: Popovic, 2015, https://aclanthology.org/W15-3049, through `sacrebleu.corpus_chrf` (extra `text`), whose figure
this is.
"""

from collections.abc import Sequence
from typing import ClassVar

from fedloom.base.extras import library
from fedloom.base.plugin import plugin
from fedloom.evaluation.corpus_metrics._checks import OfReferences

__all__ = ["CorpusChrf"]


@plugin("corpus_chrf")
class CorpusChrf(OfReferences):
    """chrF2 of a corpus, 0 to 100."""

    needs: ClassVar[tuple[str, ...]] = ("sacrebleu",)

    high = 100.0

    def score(self, found: Sequence[str], wanted: Sequence[str]) -> float:
        """Return the score."""
        return min(100.0, float(library("sacrebleu").corpus_chrf(found, [wanted]).score))
