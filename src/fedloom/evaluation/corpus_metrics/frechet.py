"""The Fréchet distance between two sets of vectors, and how large it is by chance between sets of one origin.

d^2 = |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^1/2) of means m and covariances S (Dowson & Landau, 1982,
https://doi.org/10.1016/0047-259X(82)90077-X; as FID: Heusel et al., 2017, https://arxiv.org/abs/1706.08500, section 3).
Covariances are shrunk as Ledoit & Wolf (2004, https://doi.org/10.1016/S0047-259X(03)00096-4) do, since those of few
vectors in many dimensions are singular (library `scikit-learn`, extra `text`).

Of finite sets the distance is never 0, though they have one origin: that is told by dealing all vectors anew, by
chance, into two sets of the same sizes, and measuring those.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom.base.extras import library
from fedloom.base.rng import numpy_random

__all__ = ["Distance", "distance", "squared_distance"]

Numbers = NDArray[np.float64]

_DIMENSIONS = 64
_DEALS = 100


@dataclass(frozen=True)
class Distance:
    """A squared distance beside those of the same vectors dealt anew."""

    raw: float
    chance: float
    """The mean by chance."""
    low: float
    high: float
    """The middle 95 % by chance: a raw distance above `high` tells two origins."""

    @property
    def excess(self) -> float:
        """What the distance is beyond chance, at least 0."""
        return max(0.0, self.raw - self.chance)


def distance(first_ND: Numbers, second_MD: Numbers) -> Distance:
    """Return the distance of two sets in the 64 directions in which both together spread most; deals are seeded."""
    both_LD = _reduced(np.concatenate([first_ND, second_MD]))
    n_first = len(first_ND)
    draw = numpy_random("frechet deals")
    deals = [_split_distance(both_LD[draw.permutation(len(both_LD))], n_first) for _ in range(_DEALS)]
    low, high = np.quantile(deals, (0.025, 0.975)).tolist()
    return Distance(_split_distance(both_LD, n_first), float(np.mean(deals)), low, high)


def _reduced(both_LD: Numbers) -> Numbers:
    """Return the vectors by their principal components, which all deals share."""
    centred_LD = both_LD - both_LD.mean(axis=0)
    _, _, directions_KD = np.linalg.svd(centred_LD, full_matrices=False)
    return centred_LD @ directions_KD[:_DIMENSIONS].T


def _split_distance(both_LD: Numbers, n_first: int) -> float:
    parts = both_LD[:n_first], both_LD[n_first:]
    (mean_D, spread_DD), (other_D, other_DD) = ((part.mean(axis=0), _covariance(part)) for part in parts)
    return squared_distance(mean_D, spread_DD, other_D, other_DD)


def _covariance(vectors_ND: Numbers) -> Numbers:
    shrunk_DD, _ = library("sklearn.covariance").ledoit_wolf(vectors_ND)
    return shrunk_DD


def squared_distance(mean_D: Numbers, spread_DD: Numbers, other_D: Numbers, other_DD: Numbers) -> float:
    """Return d^2 of two normal distributions."""
    # (S1 S2)^1/2 has the trace of (S1^1/2 S2 S1^1/2)^1/2, which is symmetric.
    values_D, vectors_DD = np.linalg.eigh(spread_DD)
    root_DD = (vectors_DD * np.sqrt(values_D.clip(0))) @ vectors_DD.T
    shared = np.sqrt(np.linalg.eigvalsh(root_DD @ other_DD @ root_DD).clip(0)).sum()
    apart = ((mean_D - other_D) ** 2).sum()
    return max(0.0, float(apart + np.trace(spread_DD) + np.trace(other_DD) - 2 * shared))
