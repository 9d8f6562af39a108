"""Characters of an answer over characters of its reference, both without outer white space; 1 is as long."""

import math

from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfReference

__all__ = ["LengthRatio"]


@plugin("length_ratio")
class LengthRatio(OfReference):
    """How many times as long as the reference an answer is."""

    high = math.inf
    higher_is_better = None

    def score(self, text: str, reference: str) -> float:
        """Return the ratio."""
        return len(text.strip()) / len(reference.strip())
