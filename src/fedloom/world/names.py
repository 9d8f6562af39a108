"""Invented names: every name is a first part and an ending that tells its kind, so a new name is made of known parts.

Each kind's names are dealt once and for all into disjoint pools: `canon` (facts of the public world), `fresh` (public,
but only ever seen in a context), `private` (facts that only clients know) and `held` (in no training text at all).
"""

from functools import cache
from typing import Literal

from fedloom.base.rng import python_random
from fedloom.world.words import listed

__all__ = ["ENDINGS", "FIRSTS", "Kind", "Pool", "every_name", "pool"]

Kind = Literal["drug", "company", "person", "danger"]
Pool = Literal["canon", "fresh", "private", "held"]

FIRSTS = listed(
    "zor kel tam bru vin mar dol fen gar hul jex lum nor pim quo ras sil tov wex yar "
    "bel cro dax fro gli hob jun kip lor mez"
)
ENDINGS: dict[Kind, tuple[str, ...]] = {
    "drug": listed("vex dine fol mab tril zan quin lox pax nol"),
    "company": listed("corp tek bank works gro via ton ico labs hold"),
    "person": listed("ana bert wyn sha lio eth rik oma una jo"),
    "danger": listed("bane wrack blight fang snare scald rend gore"),
}
_SIZES: dict[Kind, dict[Pool, int]] = {
    "drug": {"canon": 64, "private": 50, "held": 20},
    "company": {"canon": 48, "private": 50, "held": 20},
    "person": {"canon": 0, "private": 60, "held": 20},
    "danger": {"canon": 32, "private": 0, "held": 0},
}


@cache
def _dealt(kind: Kind) -> dict[Pool, tuple[str, ...]]:
    names = [first + end for first in FIRSTS for end in ENDINGS[kind]]
    python_random("world", "names", kind).shuffle(names)
    dealt: dict[Pool, tuple[str, ...]] = {}
    for pool_name, size in _SIZES[kind].items():
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
