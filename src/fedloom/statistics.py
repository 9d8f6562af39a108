"""Intervals: bootstrap over questions, and over clients or seeds where scores form a table.

A score is a total over a weight for each question (weight 1 for exact match, the number of tokens for a loss), so one
resampling serves all of them, and a paired difference is a difference of totals.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom import rng
from fedloom.errors import DataError

__all__ = ["Interval", "bootstrap", "student_interval", "worst_share"]

Array = NDArray[np.float64]

# 97.5 % points of Student's t for 1 to 30 degrees of freedom.
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval and the number of questions behind it."""

    value: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        """Format as `value [low, high]`, each by `spec`."""
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def bootstrap(total_CN: Array, weight_CN: Array, *, resamples: int, seed: int = 0) -> Interval:
    """Return sum(total) / sum(weight) with its percentile interval (Efron & Tibshirani, 1993, chapter 13).

    Columns are questions and are drawn with replacement; rows are clients (models) that answered the same questions
    and are drawn too if there is more than one.
    """
    n_rows, n_columns = total_CN.shape
    if n_columns == 0 or weight_CN.sum() <= 0:
        raise DataError("a score over 0 questions has no interval; evaluate at least one.")
    random = rng.numpy_random("bootstrap", seed)
    values = np.empty(resamples)
    for index in range(resamples):
        column_count = np.bincount(random.integers(n_columns, size=n_columns), minlength=n_columns)
        row_count = np.bincount(random.integers(n_rows, size=n_rows), minlength=n_rows) if n_rows > 1 else np.ones(1)
        weight = row_count @ weight_CN @ column_count
        values[index] = row_count @ total_CN @ column_count / weight if weight > 0 else math.nan
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Interval(float(total_CN.sum() / weight_CN.sum()), float(low), float(high), n_columns)


def student_interval(values: Sequence[float]) -> Interval:
    """Return the mean of repetitions (seeds) with Student's 95 % interval; it needs at least two."""
    if len(values) < 2:
        raise DataError(f"{len(values)} repetitions have no interval; run at least two seeds.")
    points = np.asarray(values, dtype=np.float64)
    critical = _STUDENT[min(len(values) - 1, len(_STUDENT)) - 1]
    half = critical * float(points.std(ddof=1)) / math.sqrt(len(values))
    mean = float(points.mean())
    return Interval(mean, mean - half, mean + half, len(values))


def worst_share(values: Sequence[float], share: float = 0.1) -> float:
    """Return the mean of the lowest `share` of the values, at least one of them (the worst decile by default)."""
    count = max(1, math.ceil(share * len(values)))
    return float(np.mean(sorted(values)[:count]))
