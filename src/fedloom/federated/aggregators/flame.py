"""The mean of the largest cluster of directions, clipped, with a little noise.

FLAME, Nguyen et al., 2022, USENIX Security, https://arxiv.org/abs/2101.02281, Algorithm 1. Rows are clustered by their
cosines with HDBSCAN, a cluster being more than half of them; rows outside are dropped. The others are clipped to the
median length S of all rows and averaged, and noise of standard deviation lambda S is added to each number.

The noise hides the rest of a backdoor. It gives no epsilon: lambda is far too small, S depends on the rows and no
accountant covers it. Privacy is the run's `privacy`.

Deviations: rows are averaged by their weights, not alike. Where HDBSCAN finds no cluster all rows stay and are clipped.
A row of zeros has the cosine 0 with every other. Rows are the changes, whose cosines are taken; the paper clusters
whole models, which are alike whatever was learnt. Noise is drawn by name, so that a round done again is the same one.
HDBSCAN is that of scikit-learn (extra `text`).
"""

from typing import ClassVar

import torch
from torch import Tensor

from fedloom.base import rng
from fedloom.base.gram import cosines, gram
from fedloom.base.plugin import NonNegative, plugin
from fedloom.contracts.aggregation import SHARE, Aggregate, Frame
from fedloom.federated.aggregators._rows import Found, OfRows, told, total_of
from fedloom.federated.aggregators.norm_clip import clip_factors

__all__ = ["Flame"]

_REASON = "points elsewhere than the largest cluster of rows"


@plugin("flame")
class Flame(OfRows):
    """The clipped mean of the largest cluster, with noise."""

    needs = ("sklearn",)
    anchored: ClassVar[bool] = True
    noisy: ClassVar[bool] = True

    noise: NonNegative = 0.001
    """The paper's lambda: standard deviation of the noise, as a share of the median length."""

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the mean of the cluster's clipped rows, and noise."""
        gram_NN = gram(rows_NP)
        norm_N, inside_N = gram_NN.diagonal().sqrt(), _largest_cluster(gram_NN)
        kept_N = weight_N.double() * inside_N
        part_N = kept_N / kept_N.sum() * clip_factors(norm_N)
        row_P = total_of(rows_NP, part_N)
        if self.noise:
            draw = rng.named_normal("flame", frame.seed, frame.round)
            row_P += (self.noise * norm_N.quantile(0.5) * draw(len(row_P))).to(row_P.dtype)
        left_out = {index: _REASON for index, inside in enumerate(inside_N.tolist()) if not inside}
        scores = {"norm": norm_N, SHARE: part_N / part_N.sum()}
        return told(row_P, frame, Found(scores=scores, left_out=left_out))

    def least_rows(self) -> int:
        """Return 3: of two rows none is a majority."""
        return 3

    def tolerates(self, n_rows: int) -> int:
        """Return the largest number below half of the rows: all rows are clipped to the median length."""
        return (n_rows - 1) // 2


def _largest_cluster(gram_NN: Tensor) -> Tensor:
    """Return which rows [N] lie in the cluster of more than half of them; all, where there is none."""
    from sklearn.cluster import HDBSCAN

    distance_NN = 1 - cosines(gram_NN).nan_to_num(nan=0.0).fill_diagonal_(1)
    majority = len(gram_NN) // 2 + 1
    clusters = HDBSCAN(
        min_cluster_size=majority,
        min_samples=1,
        metric="precomputed",
        allow_single_cluster=True,
        copy=True,  # pyright: ignore[reportArgumentType] - its default is a word that warns
    )
    label_N = torch.from_numpy(clusters.fit_predict(distance_NN.numpy()))
    inside_N = label_N == 0  # of more than half of the rows there is one cluster at most
    return inside_N if bool(inside_N.any()) else torch.ones_like(inside_N)
