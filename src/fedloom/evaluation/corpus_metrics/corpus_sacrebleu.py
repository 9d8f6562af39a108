"""BLEU, chrF2 and TER of all answers together: counts are added up before the figure is taken.

Source: the figures of `sacrebleu` (Post, 2018, https://aclanthology.org/W18-6319; extra `text`). BLEU: Papineni et al.,
2002, https://aclanthology.org/P02-1040, section 2.3. chrF2, F of character n-grams: Popovic, 2015,
https://aclanthology.org/W15-3049. TER, edits and shifts of words over the words of the references: Snover et al., 2006,
https://aclanthology.org/2006.amta-papers.25; 0 is equal, 100 as many edits as words, more is possible.
Words stand between blanks unless `asian_support` is set.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from fedloom.base.extras import library
from fedloom.base.plugin import plugin
from fedloom.evaluation.corpus_metrics._checks import OfReferences

__all__ = ["CorpusBleu", "CorpusChrf", "CorpusTer"]


class OfSacrebleu(OfReferences):
    """A figure of the library, capped at the best: rounding puts a perfect one a little above."""

    needs = ("sacrebleu",)
    high = 100.0

    def score(self, found: Sequence[str], wanted: Sequence[str]) -> float:
        """Return the figure."""
        figure = vars(library("sacrebleu"))[self.name]
        return min(self.high, float(figure(found, [wanted], **self.options()).score))

    def options(self) -> dict[str, Any]:
        """Return what the library is told besides."""
        return {}


@plugin("corpus_bleu")
class CorpusBleu(OfSacrebleu):
    """BLEU of a corpus, 0 to 100."""

    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    """How sacrebleu cuts texts; zh for Chinese, char for other scripts without blanks."""

    def options(self) -> dict[str, Any]:
        """Return the cut."""
        return {"tokenize": self.tokenize}


@plugin("corpus_chrf")
class CorpusChrf(OfSacrebleu):
    """chrF2 of a corpus, 0 to 100."""


@plugin("corpus_ter")
class CorpusTer(OfSacrebleu):
    """Edits per hundred words of the references."""

    high = math.inf
    higher_is_better = False

    asian_support: bool = False
    """Cut Chinese and Japanese by character, as sacrebleu does with `asian_support` and, on which that depends,
    `normalized`, which parts punctuation from the words of all scripts."""

    def options(self) -> dict[str, Any]:
        """Return the cut."""
        return {"normalized": self.asian_support, "asian_support": self.asian_support}
