"""Cosine of the angle between prediction and reference as a sentence encoder sees them.

Source: Reimers & Gurevych, 2019, https://arxiv.org/abs/1908.10084: mean pooling of the last hidden states, cosine. A
figure holds for one encoder; compare only figures of the same one.
"""

from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfReference
from fedloom.text.embedding import embedded

__all__ = ["EmbeddingSimilarity"]


@plugin("embedding_similarity")
class EmbeddingSimilarity(OfReference):
    """The cosine, -1 to 1."""

    needs = ("sklearn",)

    low = -1.0

    path: str = ""
    """Folder of a sentence encoder with its tokenizer, in the format of `transformers`."""

    def score(self, text: str, reference: str) -> float:
        """Return the cosine; without a reference no encoder is needed."""
        found_D, wanted_D = embedded([text, reference], self.path)
        return float((found_D @ wanted_D).clamp(-1, 1))
