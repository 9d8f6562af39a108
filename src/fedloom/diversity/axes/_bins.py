"""Fixed bins of numbers: every client sorts into the same ones, which no data decide.

A bin is named by its middle, the place that distances are measured at.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable

__all__ = ["by_length", "by_ratio"]

_RATIO_STEP, _RATIO_BINS = 0.02, 150  # up to 3; what lies above counts in the last bin


def _length_edges() -> list[int]:
    """Return 0, 1, 2, ... and above 12 eight edges to each doubling, up to 2^20: at most 9 % wide."""
    return sorted({*range(12), *(round(2 ** (k / 8)) for k in range(161))})


_EDGES = _length_edges()


def by_length(lengths: Iterable[int]) -> Counter[str]:
    """Return how many whole numbers lie in each bin.

    >>> by_length([3, 3, 100])
    Counter({'3': 2, '97': 1})
    """
    return Counter(_length_bin(length) for length in lengths)


def _length_bin(length: int) -> str:
    at = min(bisect_right(_EDGES, length) - 1, len(_EDGES) - 2)
    return f"{(_EDGES[at] + _EDGES[at + 1] - 1) / 2:.10g}"


def by_ratio(ratios: Iterable[float]) -> Counter[str]:
    """Return how many ratios lie in each bin of width 0.02 from 0 to 3.

    >>> by_ratio([0.51, 7.0])
    Counter({'0.51': 1, '2.99': 1})
    """
    return Counter(_ratio_bin(ratio) for ratio in ratios)


def _ratio_bin(ratio: float) -> str:
    at = min(int(ratio / _RATIO_STEP), _RATIO_BINS - 1)
    return f"{(at + 0.5) * _RATIO_STEP:.10g}"
