"""Length of an answer in characters without outer white space, which no tokenizer changes.

Neither long nor short is good; judges prefer long answers, so read a win rate beside it.
"""

import math

from fedloom.base.mean import Mean
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Metric, Prediction

__all__ = ["AnswerLength"]


@plugin("answer_length")
class AnswerLength(Metric):
    """Characters of the answer."""

    high = math.inf
    higher_is_better = None

    def __call__(self, example: Example, prediction: Prediction) -> Mean:
        """Return the length; a Document asks nothing and weighs 0."""
        return Mean(float(len(prediction.text.strip())), 1.0) if example.prompt else Mean()
