"""Which examples a client meets, step by step: whole shuffles, or for privacy independent draws."""

import math
from collections.abc import Iterator
from statistics import NormalDist

from fedloom.base import rng
from fedloom.contracts.federated import Noise
from fedloom.contracts.local_settings import LocalSettings

__all__ = ["batches", "level", "poisson"]


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


def batches(n_examples: int, settings: LocalSettings, *names: str | int) -> Iterator[list[list[int]]]:
    """Yield, step by step, the micro-batches of indices: whole shuffles one after another, seeded by the names."""
    random = rng.python_random("batches", *names)
    order: list[int] = []
    for _ in range(settings.steps):
        step: list[list[int]] = []
        for _ in range(settings.accumulation):
            while len(order) < settings.batch:
                order += random.sample(range(n_examples), n_examples)
            step.append(order[: settings.batch])
            order = order[settings.batch :]
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
