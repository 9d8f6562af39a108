"""Each client's counts against the pool's: distances, what chance would give, and the largest possible.

The pool holds the client itself. What chance gives is the mean distance of as many records drawn from the pool without
replacement, over named draws: it depends on the number of records alone, so clients of one size share it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.contracts.diversity import Aggregate, Index

__all__ = [
    "Counts",
    "counts_of",
    "distance_index",
    "divergence_index",
    "gap_index",
    "jensen_shannon",
    "largest_divergence",
]

_DRAWS = 300

Array = NDArray[np.floating[Any]]
Distance = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Counts:
    """The counts of the clients that have any, bins in sorted order."""

    clients: tuple[str, ...]
    bins: tuple[str, ...]
    counts_KB: NDArray[np.float64]

    @property
    def pool_B(self) -> NDArray[np.float64]:
        """The sum over clients."""
        return self.counts_KB.sum(axis=0)

    @property
    def share_K(self) -> NDArray[np.float64]:
        """What part of the pool each client makes up."""
        return self.counts_KB.sum(axis=1) / self.counts_KB.sum()


def counts_of(aggregates: Mapping[str, Aggregate], table: str, key: Callable[[str], Any] = str) -> Counts:
    """Return a table of all clients, its bins sorted by `key`; empty bins and clients are left out."""
    told = {client: sent[table] for client, sent in aggregates.items() if any(sent.get(table, {}).values())}
    bins = sorted({name for counts in told.values() for name, count in counts.items() if count}, key=key)
    place = {name: at for at, name in enumerate(bins)}
    counts_KB = np.zeros((len(told), len(bins)))
    for row, counts in enumerate(told.values()):
        for name, count in counts.items():
            if count:
                counts_KB[row, place[name]] = count
    return Counts(tuple(told), tuple(bins), counts_KB)


def divergence_index(counts: Counts, label: str) -> Index:
    """Return the Jensen-Shannon divergence of each client to the pool, in bits."""
    highest = [largest_divergence(share) for share in counts.share_K.tolist()]
    return _index(counts, label, "bits", jensen_shannon, highest)


def gap_index(counts: Counts, label: str) -> Index:
    """Return the distance of each client's rate to the pool's, where there are two bins."""
    return _index(counts, label, "", _gap, (1 - counts.share_K).tolist())


def distance_index(counts: Counts, label: str, unit: str) -> Index:
    """Return the Wasserstein-1 distance of each client to the pool; bins are named by their places on the scale."""
    places_B = np.array([float(name) for name in counts.bins])
    return _index(counts, label, unit, partial(_wasserstein, places_B), [])


def _index(counts: Counts, label: str, unit: str, distance: Distance, highest: Sequence[float]) -> Index:
    pool_B, sizes = counts.pool_B, counts.counts_KB.sum(axis=1)
    by_size = {float(size): _by_chance(pool_B, int(size), distance) for size in sorted(set(sizes.tolist()))}
    values = distance(counts.counts_KB, pool_B).tolist()
    chance = [by_size[size] for size in sizes.tolist()]
    named = partial(zip, counts.clients, strict=True)
    return Index(label, unit, dict(named(values)), dict(named(chance)), dict(named(highest)) if highest else {})


def _by_chance(pool_B: Array, size: int, distance: Distance) -> float:
    colours_B = pool_B.astype(np.int64)
    draw = rng.numpy_random("diversities", "chance", size)
    drawn_DB = draw.multivariate_hypergeometric(colours_B, size, size=_DRAWS, method="count")
    return float(distance(drawn_DB.astype(np.float64), pool_B).mean())


def _shares(counts: Array) -> Array:
    return counts / counts.sum(axis=-1, keepdims=True)


def jensen_shannon(counts_KB: Array, pool_B: Array) -> Array:
    """Return the divergences [K] in bits: JS(P, Q) = H((P + Q) / 2) - H(P) / 2 - H(Q) / 2, at least 0 and at most 1.

    Lin 1991, "Divergence measures based on the Shannon entropy", eq. 3.4. Every row has a positive sum.
    """
    p_KB, q_B = _shares(counts_KB), _shares(pool_B)
    mixed = _entropy((p_KB + q_B) / 2) - _entropy(p_KB) / 2 - _entropy(q_B) / 2
    return np.maximum(mixed, 0.0)  # rounding can leave a client like the pool just below 0


def _gap(counts_KB: Array, pool_B: Array) -> Array:
    return np.abs(_shares(counts_KB) - _shares(pool_B)).sum(axis=-1) / 2


def _entropy(shares: Array) -> Array:
    return -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(axis=-1)


def largest_divergence(share: float) -> float:
    """Return the largest divergence to the pool of a client that makes up this share of it.

    It is reached when nobody else has any of its bins: h((1 + w) / 2) - h(w) / 2, h the entropy of a coin.

    >>> round(largest_divergence(0.5), 3), largest_divergence(1.0)
    (0.311, 0.0)
    """
    mixed, own = (_entropy(np.array([chance, 1 - chance])) for chance in ((1 + share) / 2, share))
    return float(mixed - own / 2)


def _wasserstein(places_B: Array, counts_KB: Array, pool_B: Array) -> Array:
    """Return the distances [K]: the area between the two distribution functions."""
    gap_KB = np.cumsum(_shares(counts_KB) - _shares(pool_B), axis=-1)[..., :-1]
    return (np.abs(gap_KB) * np.diff(places_B)).sum(axis=-1)
