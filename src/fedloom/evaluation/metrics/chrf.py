"""chrF of one answer: F of n-grams of 1 to 6 characters, recall counting twice as much as precision.

Source: Popovic, 2015, https://aclanthology.org/W15-3049, section 2 with beta 2, as `sacrebleu.sentence_chrf` computes
it (extra `text`); white space does not count. It needs no words, so it suits all scripts alike.
"""

from typing import ClassVar

from fedloom.base.extras import library
from fedloom.base.mean import Mean
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Metric, Prediction
from fedloom.evaluation.metrics._texts import reference_of

__all__ = ["Chrf"]


@plugin("chrf")
class Chrf(Metric):
    """chrF2 of a sentence, 0 to 100."""

    needs: ClassVar[tuple[str, ...]] = ("sacrebleu",)

    high = 100.0

    def __call__(self, example: Example, prediction: Prediction) -> Mean:
        """Return the score; without a reference the weight is 0."""
        reference = reference_of(example)
        if reference is None:
            return Mean()
        found = library("sacrebleu").sentence_chrf(prediction.text, [reference])
        return Mean(min(100.0, float(found.score)), 1.0)
