"""The area below the divergence frontier of two histograms, and how texts become histograms.

Source: Pillutla et al., 2021, https://arxiv.org/abs/2102.01454, eq. 1 and 2 and appendix on quantisation.
"""

import warnings

import numpy as np
from numpy.typing import NDArray

from fedloom.base.extras import library
from fedloom.base.rng import seed_of

__all__ = ["area", "histograms"]

Numbers = NDArray[np.float64]

SCALE = 5.0
"""The paper's constant c, which spreads the curve over the unit square."""
_POINTS = 25
_VARIANCE = 0.9
_STARTS = 5
_PER_CLUSTER = 10


def area(p_K: Numbers, q_K: Numbers) -> float:
    """Return the area below exp(-c KL(q|r)), exp(-c KL(p|r)) over all mixtures r of p and q, from 0 to 1."""
    mix_W = np.linspace(1e-6, 1 - 1e-6, _POINTS)
    mixed_WK = mix_W[:, None] * p_K + (1 - mix_W[:, None]) * q_K
    x_W, y_W = (np.exp(-SCALE * _entropies(side_K, mixed_WK)) for side_K in (q_K, p_K))
    # The ends of the frontier are those of the unit square: all of one distribution and nothing of the other.
    x_W, y_W = np.concatenate([[1.0], x_W, [0.0]]), np.concatenate([[0.0], y_W, [1.0]])
    return float(min(1.0, (_below(x_W, y_W) + _below(y_W, x_W)) / 2))


def _entropies(p_K: Numbers, mixed_WK: Numbers) -> Numbers:
    some_K = p_K > 0
    return (p_K[some_K] * np.log(p_K[some_K] / mixed_WK[:, some_K])).sum(1)


def _below(x_W: Numbers, y_W: Numbers) -> float:
    order_W = np.lexsort((-y_W, x_W))
    x_W, y_W = x_W[order_W], y_W[order_W]
    return float((np.diff(x_W) * (y_W[1:] + y_W[:-1])).sum() / 2)


def histograms(first_ND: Numbers, second_MD: Numbers) -> tuple[Numbers, Numbers]:
    """Return how the vectors of two sets fall into common clusters, as shares [K].

    A cluster for every tenth text of the smaller set, by k-means after principal components that keep 90 % of the
    variance, all seeded.
    """
    both_LD = np.concatenate([first_ND, second_MD])
    if len(np.unique(both_LD, axis=0)) == 1:
        return np.ones(1), np.ones(1)
    components = library("sklearn.decomposition").PCA(n_components=_VARIANCE, svd_solver="full")
    reduced_LD = components.fit_transform(both_LD)
    n_clusters = max(2, round(min(len(first_ND), len(second_MD)) / _PER_CLUSTER))
    n_clusters = min(n_clusters, len(np.unique(reduced_LD.round(9), axis=0)))
    seed = seed_of("divergence frontier") % 2**32
    clusters = library("sklearn.cluster").KMeans(n_clusters, n_init=_STARTS, max_iter=500, random_state=seed)
    with warnings.catch_warnings():
        # Fewer different points than clusters leave some of these empty, which changes no share.
        warnings.simplefilter("ignore", library("sklearn.exceptions").ConvergenceWarning)
        cluster_L = clusters.fit_predict(reduced_LD)
    sides = cluster_L[: len(first_ND)], cluster_L[len(first_ND) :]
    first_K, second_K = (np.bincount(side, minlength=n_clusters) / len(side) for side in sides)
    return first_K, second_K
