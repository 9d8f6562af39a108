"""Length of an answer in characters without outer white space, which no tokenizer changes.

Neither long nor short is good; judges prefer long answers, so read a win rate beside it.
"""

import math

from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfAnswer

__all__ = ["AnswerLength"]


@plugin("answer_length")
class AnswerLength(OfAnswer):
    """Characters of the answer."""

    high = math.inf
    higher_is_better = None

    def score(self, text: str) -> float:
        """Return the length."""
        return float(len(text.strip()))
