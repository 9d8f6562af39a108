"""Shares in whole numbers: by largest remainder, exact in their sum."""

from collections.abc import Sequence
from fractions import Fraction

__all__ = ["by_largest_remainder"]


def by_largest_remainder(total: int, exact: Sequence[float | Fraction]) -> list[int]:
    """Return whole numbers that sum to the total, each less than 1 from its exact share; ties go to the earlier one.

    >>> by_largest_remainder(3, [1.5, 0.9, 0.6])
    [1, 1, 1]
    """
    sizes = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda at: sizes[at] - exact[at])  # stable
    for at in by_remainder[: total - sum(sizes)]:
        sizes[at] += 1
    return sizes
