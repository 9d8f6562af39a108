"""A total dealt to parts in whole numbers: by largest remainder, exact in its sum, ties to the earlier part."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from fedloom.base.shares import by_largest_remainder
from fedloom.contracts.synthesis import Allocator

__all__ = ["apportioned", "dealt_by_kind"]


def apportioned(total: int, weights: Sequence[int | Fraction]) -> list[int]:
    """Return whole numbers that sum to the total, each less than 1 from its share by weight; all weights 0 are equal.

    >>> apportioned(10, [1, 1, 1]), apportioned(3, [0, 0]), apportioned(4, [3, 1])
    ([4, 3, 3], [2, 1], [3, 1])
    """
    if not weights:
        return []
    whole = sum(weights)
    shares = [Fraction(total) * weight / whole if whole else Fraction(total, len(weights)) for weight in weights]
    return by_largest_remainder(total, shares)


def dealt_by_kind(total: int, kinds: Sequence[str], allocator: Allocator) -> list[int]:
    """Return what each member gets, whose kinds are given: a kind by how many members it has, its members alike."""
    members = Counter(kinds)
    parts = dict(zip(members, allocator(total, [*members.values()]), strict=True))
    left = {kind: iter(apportioned(part, [1] * members[kind])) for kind, part in parts.items()}
    return [next(left[kind]) for kind in kinds]
