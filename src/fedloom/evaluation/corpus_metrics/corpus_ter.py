"""Translation edit rate of all answers together: edits and shifts of words, over the words of the references.

Source: Snover et al., 2006, https://aclanthology.org/2006.amta-papers.25, through `sacrebleu.corpus_ter` (extra
`text`), whose figure this is: 0 is equal, 100 as many edits as words, more is possible. Words stand between blanks
unless `asian_support` is set.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

from fedloom.base.extras import library
from fedloom.base.plugin import plugin
from fedloom.evaluation.corpus_metrics._checks import OfReferences

__all__ = ["CorpusTer"]


@plugin("corpus_ter")
class CorpusTer(OfReferences):
    """Edits per hundred words of the references."""

    needs: ClassVar[tuple[str, ...]] = ("sacrebleu",)

    high = math.inf
    higher_is_better = False

    asian_support: bool = False
    """Cut Chinese and Japanese by character, as sacrebleu does with `asian_support` and, on which that depends,
    `normalized`, which parts punctuation from the words of all scripts."""

    def score(self, found: Sequence[str], wanted: Sequence[str]) -> float:
        """Return the rate."""
        cut = {"normalized": self.asian_support, "asian_support": self.asian_support}
        return float(library("sacrebleu").corpus_ter(found, [wanted], **cut).score)
