"""Who shares a mask with whom, and how many neighbours are enough.

Bell, Bonawitz, Gascon, Lepoint & Raykova 2020, Secure Single-Server Aggregation with (Poly)Logarithmic Overhead,
https://eprint.iacr.org/2020/704: a ring of the clients in random order in which each is joined with the k/2 nearest
on either side. k and t are the least for which, by the union bound over n clients,

- colluding: that any client has t or more of the C colluding among its k neighbours,
  n P[Hypergeometric(n - 1, C, k) >= t] <= 2^-40;
- connected: that the clients that neither collude nor are lost fall into two parts, so that two sums show. Two runs of
  k/2 clients in the ring would have to be colluding or lost: C(n, 2) P[k given places are among the C + L] <= 2^-40;
- lost: that any client has fewer than t neighbours left of which L of all are lost,
  n P[Hypergeometric(n - 1, n - 1 - L, k) < t] <= 2^-20.

Deviations: t is at least k/2; the two ends of the ring's cuts are bounded exactly, not by the paper's n (c + l)^(k/2).
Below 50 clients everybody is everybody's neighbour and t is the least number above 2n/3 (Bonawitz et al. 2017, section
6.2), where two different lists of survivors cannot both find t honest signatures while fewer than n/3 collude.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from fedloom.base import rng
from fedloom.base.errors import ConfigError

__all__ = ["SMALL", "Size", "neighbours", "smallest"]

SMALL = 50
"""Clients below which the graph is complete."""

_PRIVACY, _FAILURE = 2.0**-40, 2.0**-20


@dataclass(frozen=True)
class Size:
    """Neighbours of each client, and the shares that give back a secret."""

    degree: int
    threshold: int


@lru_cache(64)
def smallest(clients: int, *, colluding: float, lost: float) -> Size:
    """Return the least degree, and then the least threshold, for those shares of colluding and of lost clients.

    Raises ConfigError where no degree does, or where a share is not in [0, 1).
    """
    if clients < 3 or colluding < 0 or lost < 0 or colluding + lost >= 1:
        raise ConfigError(
            f"secure sum: found {clients} clients, shares {colluding:g} colluding and {lost:g} lost, allowed are at "
            "least 3 clients and shares >= 0 below 1 together; lower the shares."
        )
    n_colluding, n_lost = math.ceil(colluding * clients), math.ceil(lost * clients)
    if clients < SMALL:
        return _complete(clients, n_colluding, n_lost)
    for degree in range(2, clients - 1, 2):
        threshold = _threshold(clients, degree, n_colluding)
        fails = clients * _fewer(clients - 1, clients - 1 - n_lost, degree, threshold)
        if threshold <= degree and fails <= _FAILURE and _cut(clients, degree, n_colluding + n_lost) <= _PRIVACY:
            return Size(degree, threshold)
    raise ConfigError(
        f"secure sum: found {clients} clients of which {n_colluding} collude and {n_lost} are lost, for which no graph "
        "is safe and survives; lower the shares."
    )


def _complete(clients: int, n_colluding: int, n_lost: int) -> Size:
    threshold = 2 * clients // 3 + 1
    if n_colluding >= threshold or clients - n_lost < threshold:
        raise ConfigError(
            f"secure sum: found {n_colluding} colluding and {n_lost} lost of {clients} clients, allowed are fewer than "
            f"{threshold} and at most {clients - threshold}; lower the shares."
        )
    return Size(clients - 1, threshold)


def _chances(population: int, marked: int, draws: int) -> list[float]:
    """Return P[X = 0], ... P[X = draws] of the hypergeometric distribution."""

    def log_choose(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) if 0 <= k <= n else -math.inf

    whole = log_choose(population, draws)
    return [
        math.exp(log_choose(marked, k) + log_choose(population - marked, draws - k) - whole) for k in range(draws + 1)
    ]


def _threshold(clients: int, degree: int, n_colluding: int) -> int:
    """Return the least t >= k/2 with n P[X >= t] <= 2^-40; k + 1 where t = k is too small."""
    chances, tail, threshold = _chances(clients - 1, n_colluding, degree), 0.0, degree + 1
    while threshold > degree // 2 and clients * (tail + chances[threshold - 1]) <= _PRIVACY:
        threshold -= 1
        tail += chances[threshold]
    return threshold


def _fewer(population: int, marked: int, draws: int, threshold: int) -> float:
    return math.fsum(_chances(population, marked, draws)[:threshold])


def _cut(clients: int, degree: int, n_bad: int) -> float:
    """Return the bound on the chance that two runs of k/2 clients are colluding or lost."""
    chance = math.prod((n_bad - place) / (clients - place) for place in range(min(degree, n_bad + 1)))
    return math.comb(clients, 2) * chance


def neighbours(clients: Sequence[str], degree: int, *seed: str | int) -> dict[str, tuple[str, ...]]:
    """Return the neighbours of each client in sorted order; anybody draws the same graph from the public seed.

    With fewer clients than the degree asks for, all are neighbours.
    """
    if degree >= len(clients) - 1:
        return {one: tuple(sorted(other for other in clients if other != one)) for one in clients}
    ring = sorted(clients)
    rng.python_random("secure sum graph", *seed).shuffle(ring)
    steps = [step for step in range(-(degree // 2), degree // 2 + 1) if step]
    return {one: tuple(sorted(ring[(place + step) % len(ring)] for step in steps)) for place, one in enumerate(ring)}
