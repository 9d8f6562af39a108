"""A total by what parts have already: the same for each, more for those that have less, or the smallest raised first.

Names as reported of FedGC; its formulas are not public, those here are this package's.
"""

from collections.abc import Sequence
from fractions import Fraction

from fedloom.base.plugin import plugin
from fedloom.contracts.synthesis import Allocator
from fedloom.synthesis.allocation import apportioned

__all__ = ["Equal", "Inverse", "WaterFilling"]


@plugin("equal")
class Equal(Allocator):
    """The same for each part."""

    def __call__(self, total: int, has: Sequence[int]) -> list[int]:
        """Return total / n for each of n parts, in whole numbers."""
        return apportioned(total, [1] * len(has))


@plugin("inverse")
class Inverse(Allocator):
    """By how much less a part has than the largest: (max - n) / sum of (max - n); all equal: the same for each."""

    def __call__(self, total: int, has: Sequence[int]) -> list[int]:
        """Return the shares in whole numbers; the largest part gets none unless all are equal."""
        return apportioned(total, [max(has) - own for own in has])


@plugin("water_filling")
class WaterFilling(Allocator):
    """The smallest parts are raised to one level, max(level - n, 0), as high as the total reaches."""

    def __call__(self, total: int, has: Sequence[int]) -> list[int]:
        """Return what each part is raised by, in whole numbers."""
        low = sorted(has)
        # What is poured over the n smallest alone stands at (total + what they have) / n, never below the true level.
        level = min((Fraction(total + sum(low[:n]), n) for n in range(1, len(low) + 1)), default=Fraction(0))
        return apportioned(total, [max(level - own, Fraction(0)) for own in has])
