"""The point that has the smallest sum of distances to the rows.

RFA, Pillutla et al., 2022, Robust Aggregation for Federated Learning, https://arxiv.org/abs/1912.13445, Algorithm 2,
the smoothed Weiszfeld algorithm: from the weighted mean on, z <- sum_i b_i u_i / sum_i b_i with b_i = w_i / max(nu,
||z - u_i||). Rows that have less than half of the weight, whatever they hold, move it no farther than a bound.

Deviations: z is never made before the end. It is a mixture of the rows, so that its distances follow from their inner
products, and a step costs N^2; hence steps until the shares stand still, in place of the paper's 3. nu is a share of
the median distance to z, so that scaled rows give the scaled aggregate and no attacker chooses it.
"""

import torch
from torch import Tensor

from fedloom.base.gram import gram
from fedloom.base.plugin import AtLeast, Positive, plugin
from fedloom.contracts.aggregation import SHARE, Aggregate, Frame
from fedloom.federated.aggregators._rows import Found, OfRows, told, total_of

__all__ = ["GeometricMedian"]

_STILL = 1e-12
"""A change of so little of any share is rounding. A row far out has a tiny share, which must be right all the same."""


@plugin("geometric_median")
class GeometricMedian(OfRows):
    """The weighted geometric median."""

    steps: AtLeast = 2000
    """Of Weiszfeld's algorithm, at most."""
    smoothing: Positive = 1e-6
    """Smallest distance that counts, as a share of the median distance."""

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the mixture of rows that Weiszfeld's steps end at."""
        gram_NN = gram(rows_NP)
        share_N = weight_N = weight_N.double() / weight_N.double().sum()
        for _ in range(self.steps):
            before_N, share_N = share_N, self._step(gram_NN, weight_N, share_N)
            if bool(((share_N - before_N).abs() <= _STILL * share_N).all()):
                break
        found = Found(scores={"distance": _distances(gram_NN, share_N), SHARE: share_N})
        return told(total_of(rows_NP, share_N), frame, found)

    def _step(self, gram_NN: Tensor, weight_N: Tensor, share_N: Tensor) -> Tensor:
        distance_N = _distances(gram_NN, share_N)
        least = self.smoothing * float(distance_N.quantile(0.5))
        pull_N = weight_N / distance_N.clamp(min=max(least, torch.finfo(torch.float64).tiny))
        return pull_N / pull_N.sum()

    def tolerates(self, n_rows: int) -> int:
        """Return the largest number below half of the rows."""
        return (n_rows - 1) // 2


def _distances(gram_NN: Tensor, share_N: Tensor) -> Tensor:
    """Return the distances [N] of the rows from their mixture."""
    with_N = gram_NN @ share_N
    return (gram_NN.diagonal() - 2 * with_N + share_N @ with_N).clamp(min=0).sqrt()
