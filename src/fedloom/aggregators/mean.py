"""The weighted mean of the rows.

McMahan et al., 2017, https://arxiv.org/abs/1602.05629, Algorithm 1, the server's last line: sum over n_k / n of the
rows. Not robust: one row can move the mean anywhere.

Deviations: sums are taken in float64 and rounded once to the rows' dtype. In another order or grouping of the rows the
float64 sum differs by at most N 2^-53 of the sum of |weight row|, so that float32 means differ in the last bit at most.
"""

import torch
from torch import Tensor

from fedloom.aggregators._checks import CHUNK, check_matrix, check_row
from fedloom.contracts import Accumulator, Aggregator
from fedloom.errors import DataError
from fedloom.plugin import plugin

__all__ = ["Mean", "RunningMean"]


class RunningMean:
    """A weighted sum of rows, kept in one float64 buffer [P] whatever their number, and the sum of their weights."""

    def __init__(self) -> None:
        self._total_P: Tensor | None = None
        self._first: tuple[torch.dtype, torch.Size] | None = None
        self._weight = 0.0
        self._count = 0

    def add(self, row_P: Tensor, weight: float) -> None:
        """Take one row; raises if it is not finite, unlike the first one, or of a weight that is not positive."""
        check_row(row_P, weight, self._first, index=self._count)
        if self._total_P is None:
            self._first = (row_P.dtype, row_P.shape)
            self._total_P = torch.zeros_like(row_P, dtype=torch.float64)
        for total, part in zip(self._total_P.split(CHUNK), row_P.split(CHUNK), strict=True):
            total.add_(part, alpha=weight)
        self._weight += weight
        self._count += 1

    def result(self) -> Tensor:
        """Return the mean [P] in the rows' dtype; raises DataError if no row was taken."""
        if self._total_P is None or self._first is None:
            raise DataError("a round without rows has no mean: at least one client must report.")
        mean_P = torch.empty_like(self._total_P, dtype=self._first[0])
        for mean, total in zip(mean_P.split(CHUNK), self._total_P.split(CHUNK), strict=True):
            mean.copy_(total / self._weight)
        return mean_P


@plugin("mean")
class Mean(Aggregator):
    """The weighted mean: the rows' sum, each times its weight."""

    def __call__(self, rows_NP: Tensor, weight_N: Tensor) -> Tensor:
        """Return weight_N @ rows_NP, computed in float64."""
        check_matrix(rows_NP, weight_N)
        return (weight_N.double() @ rows_NP.double()).to(rows_NP.dtype)

    def accumulator(self) -> Accumulator:
        """Return a running mean."""
        return RunningMean()
