"""Values that add up: a mean is kept as total and weight until it is printed, so grouping never changes it."""

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

__all__ = ["LossSum", "Mean", "summed"]

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean as total and weight; adding two means gives the mean over both.

    >>> (Mean(3.0, 2.0) + Mean(1.0, 2.0)).value
    1.0
    """

    total: float = 0.0
    weight: float = 0.0

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.weight + other.weight)

    @property
    def value(self) -> float:
        """Total over weight; NaN if nothing was added."""
        return self.total / self.weight if self.weight else math.nan


def summed(parts: Iterable[tuple[Key, Mean]]) -> dict[Key, Mean]:
    """Return the sum of the means of each key, in the order of first appearance."""
    sums: dict[Key, Mean] = {}
    for key, mean in parts:
        sums[key] = sums.get(key, Mean()) + mean
    return sums


@dataclass(frozen=True, slots=True)
class LossSum:
    """The losses of B examples: summed over what counts in each (`total_B`), and how much that is (`weight_B`).

    For next-token losses the weight is the number of supervised tokens. Never a mean: who sums over micro-batches or
    clients divides once, at the end.
    """

    total_B: Tensor
    weight_B: Tensor

    @property
    def mean(self) -> Mean:
        """The totals of all examples over their weights."""
        return Mean(float(self.total_B.detach().double().sum()), float(self.weight_B.double().sum()))
