"""BLEU of one answer: n-gram precision up to 4, counting only orders that the answer is long enough for.

Source: Papineni et al., 2002, https://aclanthology.org/P02-1040, section 2.3, as `sacrebleu.sentence_bleu` computes
it (Post, 2018, https://aclanthology.org/W18-6319; extra `text`): effective order, exponential smoothing.

A mean of these is not the BLEU of a corpus, which `corpus_bleu` is.
"""

from typing import Literal

from fedloom.base.extras import library
from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfReference

__all__ = ["Bleu"]


@plugin("bleu")
class Bleu(OfReference):
    """BLEU of a sentence, 0 to 100."""

    needs = ("sacrebleu",)

    high = 100.0

    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    """How sacrebleu cuts texts; zh for Chinese, char for other scripts without blanks."""

    def score(self, text: str, reference: str) -> float | None:
        """Return the score; None if the library reads no token in the reference."""
        return self._bleu(text, reference) if self._bleu(reference, reference) else None

    def _bleu(self, text: str, reference: str) -> float:
        found = library("sacrebleu").sentence_bleu(text, [reference], tokenize=self.tokenize)
        return min(100.0, float(found.score))  # rounding puts a perfect one a little above
