"""Invented names: every name is a first part and an ending that tells its kind, so a new name is made of known parts.

Each kind's names are dealt once and for all into disjoint pools: `canon` (facts of the public world), `fresh` (public,
but only ever seen in a context), `private` (facts that only clients know) and `held` (in no training text at all).
"""

from collections.abc import Mapping
from functools import cache
from typing import Literal

from fedloom.base.rng import python_random
from fedloom.world.words import WORDS, table

__all__ = ["ENDINGS", "FIRSTS", "Kind", "Pool", "every_name", "pool"]

Kind = Literal["drug", "company", "person", "danger"]
Pool = Literal["canon", "fresh", "private", "held"]

FIRSTS = WORDS["firsts"]
ENDINGS: Mapping[Kind, tuple[str, ...]] = table("words")["endings"]


@cache
def _dealt(kind: Kind) -> dict[Pool, tuple[str, ...]]:
    names = [first + end for first in FIRSTS for end in ENDINGS[kind]]
    python_random("world", "names", kind).shuffle(names)
    dealt: dict[Pool, tuple[str, ...]] = {}
    for pool_name, size in table("words")["pools"][kind].items():
        dealt[pool_name], names = tuple(names[:size]), names[size:]
    dealt["fresh"] = tuple(names)
    return dealt


def pool(kind: Kind, pool: Pool) -> tuple[str, ...]:
    """Return the names of `kind` in `pool`."""
    return _dealt(kind)[pool]


@cache
def every_name() -> frozenset[str]:
    """Return the names of all kinds and pools."""
    return frozenset(first + end for first in FIRSTS for ends in ENDINGS.values() for end in ends)
