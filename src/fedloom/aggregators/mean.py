"""The weighted mean of the rows.

McMahan et al., 2017, https://arxiv.org/abs/1602.05629, Algorithm 1, the server's last line: sum over n_k / n of the
rows. Not robust: one row can move the mean anywhere.

Deviations: sums are taken in float64 and rounded once to the rows' dtype. In another order or grouping of the rows the
float64 sum differs by at most N 2^-53 of the sum of |weight row|, so that float32 means differ in the last bit at most.

Speed: a float64 sum moves five times the bytes of a float32 row. So a few rows are held and summed together, chunk by
chunk in the cache; NaN and infinity show in the sum, and only then are the rows searched.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedloom.aggregators._checks import check_matrix, check_row, is_finite
from fedloom.aggregators._memory import fresh
from fedloom.contracts import Accumulator, Aggregator, Frame
from fedloom.errors import DataError, TrainingError
from fedloom.plugin import plugin

__all__ = ["CHUNK", "HELD_BYTES", "HELD_ROWS", "Mean", "RunningMean"]

CHUNK = 1 << 17
"""Numbers of a row handled at a time: few enough for the cache, enough to make a call of torch worth its start."""

HELD_ROWS = 8
HELD_BYTES = 1 << 25
"""Rows are held until they are so many or so large; large ones are worth more as memory than as speed."""


class RunningMean:
    """A weighted sum of rows in one float64 buffer [P] whatever their number, and a few rows not yet in it.

    A row that was added must not change until the result has been taken.
    """

    def __init__(self, *, held_bytes: int = HELD_BYTES) -> None:
        self._held_bytes = held_bytes
        self._total_P: Tensor | None = None
        self._held: list[Tensor] = []
        self._weights: list[float] = []
        self._scratch = np.empty(0)
        self._first: tuple[torch.dtype, torch.Size] | None = None
        self._weight = 0.0
        self._count = 0

    def add(self, row_P: Tensor, weight: float) -> None:
        """Take one row; raises DataError if it is unlike the first one, or of a weight that is not positive.

        NaN or infinity in a row raises TrainingError, here or in `result`.
        """
        check_row(row_P, weight, self._first, index=self._count)
        self._first = (row_P.dtype, row_P.shape)
        if self._held and (len(self._held) == HELD_ROWS or len(self._held) * row_P.nbytes >= self._held_bytes):
            self._fold()
        self._held.append(row_P)
        self._weights.append(weight)
        self._weight += weight
        self._count += 1

    def result(self) -> Tensor:
        """Return the mean [P] in the rows' dtype; raises DataError if no row was taken."""
        if not self._held:
            raise DataError("a round without rows has no mean: at least one client must report.")
        mean_P = fresh(len(self._held[0]), self._held[0].dtype)
        self._write(mean_P, divisor=self._weight)
        return mean_P

    def measures(self) -> dict[str, float]:
        """Return nothing: what averaging costs cannot be seen in a running sum."""
        return {}

    def _fold(self) -> None:
        total_P = fresh(len(self._held[0]), torch.float64) if self._total_P is None else self._total_P
        self._write(total_P, divisor=1.0)
        self._total_P, self._held, self._weights = total_P, [], []

    def _write(self, target_P: Tensor, *, divisor: float) -> None:
        """Write the sum of all rows over `divisor`; the target may be the running total itself."""
        weight_M = torch.tensor(self._weights, dtype=torch.float64)
        rows = [row_P.numpy() for row_P in self._held]
        for start in range(0, len(target_P), CHUNK):
            target_C = target_P[start : start + CHUNK]
            # NumPy widens: its calls begin in a third of the time of torch's, which counts at this size.
            sums_C, wide_MC = self._room(len(target_C))
            for wide_C, row_P in zip(wide_MC, rows, strict=True):
                wide_C[:] = row_P[start : start + CHUNK]
            sum_C = torch.mv(torch.from_numpy(wide_MC).T, weight_M, out=torch.from_numpy(sums_C))
            if self._total_P is not None:
                sum_C.add_(self._total_P[start : start + CHUNK])
            if not is_finite(target_C.copy_(sum_C.div_(divisor))):
                self._refuse()

    def _room(self, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return room for the sum of a chunk and for the held rows' chunks, always the same: new memory is dear."""
        n_held = len(self._held)
        if self._scratch.size == 0:
            self._scratch = np.empty((HELD_ROWS + 1) * width)
        return self._scratch[:width], self._scratch[width : (n_held + 1) * width].reshape(n_held, width)

    def _refuse(self) -> None:
        for index, row_P in enumerate(self._held, start=self._count - len(self._held)):
            if not is_finite(row_P):
                raise TrainingError(f"row {index} of the round holds NaN or infinity: allowed are finite numbers.")
        raise TrainingError(f"the sum of {self._count} rows overflows: give smaller weights.")


@plugin("mean")
class Mean(Aggregator):
    """The weighted mean: the rows' sum, each times its weight."""

    def __call__(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Tensor:
        """Return weight_N @ rows_NP, computed in float64."""
        check_matrix(rows_NP, weight_N)
        mean = RunningMean(held_bytes=rows_NP.nbytes)  # they are held by the matrix anyway
        for row_P, weight in zip(rows_NP, weight_N.tolist(), strict=True):
            mean.add(row_P, weight)
        return mean.result()

    def accumulator(self, frame: Frame) -> Accumulator:
        """Return a running mean."""
        return RunningMean()
