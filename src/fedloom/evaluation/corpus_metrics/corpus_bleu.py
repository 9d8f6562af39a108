"""BLEU of all answers together: counts of n-grams are added up before precision and brevity are taken.

Source: Papineni et al., 2002, https://aclanthology.org/P02-1040, through `sacrebleu.corpus_bleu` (Post, 2018,
https://aclanthology.org/W18-6319; extra `text`), whose figure this is.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from fedloom.base.extras import library
from fedloom.base.plugin import plugin
from fedloom.evaluation.corpus_metrics._checks import OfReferences

__all__ = ["CorpusBleu"]


@plugin("corpus_bleu")
class CorpusBleu(OfReferences):
    """BLEU of a corpus, 0 to 100."""

    needs: ClassVar[tuple[str, ...]] = ("sacrebleu",)

    high = 100.0

    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    """How sacrebleu cuts texts; zh for Chinese, char for other scripts without blanks."""

    def score(self, found: Sequence[str], wanted: Sequence[str]) -> float:
        """Return the score."""
        return min(100.0, float(library("sacrebleu").corpus_bleu(found, [wanted], tokenize=self.tokenize).score))
