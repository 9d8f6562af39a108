"""Which examples a client meets, step by step: whole shuffles, or for privacy independent draws."""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

from fedloom.base import rng
from fedloom.contracts.federated import Noise
from fedloom.contracts.local_settings import LocalSettings
from fedloom.contracts.model import Shard

__all__ = ["batches", "drawable", "level", "mixed", "poisson"]


def level(n_examples: int, levels: int, *, round: int, rounds: int) -> range:
    """Return the examples that a client trains on in a round: those of one level of so many, none of them empty.

    Levels are equal parts of the examples in their order and of the rounds; with fewer examples than levels, several
    levels are the same example.

    >>> [level(7, 3, round=one, rounds=6) for one in range(6)][::2]
    [range(0, 2), range(2, 4), range(4, 7)]
    """
    at = min(levels * round // rounds, levels - 1)
    first = n_examples * at // levels
    return range(first, max(n_examples * (at + 1) // levels, first + 1))


def drawable(shard: Shard, share: float | None) -> tuple[Sequence[int], Sequence[int]]:
    """Return the places of own and of generated examples that can be drawn where a share of all elements is generated.

    Who has only one of the two kinds draws from that, whatever the share.
    """
    if not shard.generated:
        return range(len(shard.items)), ()
    own, made = [at for at in range(len(shard.items)) if at not in shard.generated], sorted(shard.generated)
    if share is None or not own:
        return own, made
    return (() if share == 1 else own), (() if share == 0 else made)


def mixed(
    own: Sequence[int], made: Sequence[int], share: float, settings: LocalSettings, *names: str | int
) -> Iterator[list[list[int]]]:
    """Yield micro-batches whose every element is generated with probability `share`: whole shuffles of either kind."""
    random = rng.python_random("kinds", *names)
    orders = _endless(own, "batches", *names), _endless(made, "generated", *names)
    for _ in range(settings.steps):
        yield [
            [next(orders[random.random() < share]) for _ in range(settings.batch)] for _ in range(settings.accumulation)
        ]


def _endless(places: Sequence[int], *names: str | int) -> Iterator[int]:
    random = rng.python_random(*names)
    while True:
        yield from random.sample(places, len(places))


def batches(n_examples: int, settings: LocalSettings, *names: str | int) -> Iterator[list[list[int]]]:
    """Yield, step by step, the micro-batches of indices: whole shuffles one after another, seeded by the names."""
    random = rng.python_random("batches", *names)
    order, start = list[int](), 0
    for _ in range(settings.steps):
        step: list[list[int]] = []
        for _ in range(settings.accumulation):
            while len(order) - start < settings.batch:
                order, start = order[start:] + random.sample(range(n_examples), n_examples), 0
            step.append(order[start : start + settings.batch])
            start += settings.batch
        yield step


def poisson(n_examples: int, rate: float, settings: LocalSettings, noise: Noise) -> list[list[int]]:
    """Return micro-batches of the examples that one step draws, each example by itself with probability `rate`.

    The draws come from the mechanism's noise: a server that could tell who takes part would void the amplification by
    sampling on which the accountant relies. A draw is cut into equal micro-batches of about `settings.batch`.
    """
    if rate >= 1:
        drawn = list(range(n_examples))
    else:
        drawn = (noise(n_examples) < NormalDist().inv_cdf(rate)).nonzero().flatten().tolist()
    if not drawn:
        return []
    size = math.ceil(len(drawn) / max(1, round(len(drawn) / settings.batch)))
    return [drawn[start : start + size] for start in range(0, len(drawn), size)]
