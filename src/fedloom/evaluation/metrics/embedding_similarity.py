"""Cosine of the angle between prediction and reference as a sentence encoder sees them.

Source: Reimers & Gurevych, 2019, https://arxiv.org/abs/1908.10084: mean pooling of the last hidden states, cosine. A
figure holds for one encoder; compare only figures of the same one.
"""

from typing import ClassVar

from fedloom.base.mean import Mean
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Metric, Prediction
from fedloom.evaluation.metrics._texts import reference_of
from fedloom.text.embedding import embedded

__all__ = ["EmbeddingSimilarity"]


@plugin("embedding_similarity")
class EmbeddingSimilarity(Metric):
    """The cosine, -1 to 1."""

    needs: ClassVar[tuple[str, ...]] = ("sklearn",)

    low = -1.0

    path: str = ""
    """Folder of a sentence encoder with its tokenizer, in the format of `transformers`."""

    def __call__(self, example: Example, prediction: Prediction) -> Mean:
        """Return the cosine; without a reference the weight is 0, and no encoder is needed."""
        reference = reference_of(example)
        if reference is None:
            return Mean()
        found_D, wanted_D = embedded([prediction.text, reference], self.path)
        return Mean(float((found_D @ wanted_D).clamp(-1, 1)), 1.0)
