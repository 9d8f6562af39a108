"""Characters of an answer over characters of its reference, both without outer white space; 1 is as long."""

import math

from fedloom.base.mean import Mean
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Metric, Prediction
from fedloom.evaluation.metrics._texts import reference_of

__all__ = ["LengthRatio"]


@plugin("length_ratio")
class LengthRatio(Metric):
    """How many times as long as the reference an answer is."""

    high = math.inf
    higher_is_better = None

    def __call__(self, example: Example, prediction: Prediction) -> Mean:
        """Return the ratio; without a reference the weight is 0."""
        reference = reference_of(example)
        return Mean(len(prediction.text.strip()) / len(reference.strip()), 1.0) if reference else Mean()
