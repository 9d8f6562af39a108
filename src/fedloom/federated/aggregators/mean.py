"""The weighted mean of the rows.

McMahan et al., 2017, https://arxiv.org/abs/1602.05629, Algorithm 1, the server's last line: sum over n_k / n of the
rows. Not robust: one row can move the mean anywhere.

Deviations: sums are taken in float64 and rounded once to the rows' dtype. In another order or grouping of the rows the
float64 sum differs by at most N 2^-53 of the sum of |weight row|, so that float32 means differ in the last bit at most.

Speed: a float64 sum moves five times the bytes of a float32 row. So a few rows are held and summed together, chunk by
chunk in the cache; NaN and infinity show in the sum, and only then are the rows searched.
"""

import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedloom.base.errors import DataError, TrainingError
from fedloom.base.files import disk_errors
from fedloom.base.plugin import plugin
from fedloom.base.rows import check_matrix, check_row, is_finite
from fedloom.contracts.aggregation import Accumulator, Aggregate, Aggregator, Frame

__all__ = ["CHUNK", "FILED_BYTES", "HELD_BYTES", "HELD_ROWS", "Mean", "RunningMean", "mean_of", "mixed"]

CHUNK = 1 << 17
"""Numbers of a row handled at a time: few enough for the cache, enough to make a call of torch worth its start."""

HELD_ROWS = 8
HELD_BYTES = 1 << 25
"""Rows are held until they are so many or so large; large ones are worth more as memory than as speed."""


FILED_BYTES = 1 << 27
"""Sums that take so much lie in a file, of which memory holds what is being added to."""

_LARGE = 1 << 22
"""Numbers of a row of which no second copy is made."""


class RunningMean:
    """A weighted sum of rows in one float64 buffer [P] whatever their number, and a few rows not yet in it.

    A row that was added must not change until the result has been taken.
    """

    def __init__(self, *, held_bytes: int = HELD_BYTES, held_rows: int = HELD_ROWS) -> None:
        self._held_bytes, self._held_rows = held_bytes, held_rows
        self._total_P: Tensor | None = None
        self._file: mmap.mmap | None = None
        """What holds a large sum in place of memory."""
        self._held: list[Tensor] = []
        self._weights: list[float] = []
        self._first: tuple[torch.dtype, torch.Size] | None = None
        self._weight = 0.0
        self._count = 0

    def add(self, row_P: Tensor, weight: float, client: str = "") -> None:
        """Take one row; raises DataError if it is unlike the first one, or of a weight that is not positive.

        NaN or infinity in a row raises TrainingError, here or in `result`.
        """
        check_row(row_P, weight, self._first, index=self._count)
        self._first = (row_P.dtype, row_P.shape)
        if self._held and (len(self._held) == self._held_rows or len(self._held) * row_P.nbytes >= self._held_bytes):
            self._fold()
        self._held.append(row_P)
        self._weights.append(weight)
        self._weight += weight
        self._count += 1
        if row_P.nbytes >= self._held_bytes:  # its memory is worth more than the time
            self._fold()

    def result(self) -> Aggregate:
        """Return the mean in the rows' dtype; raises DataError if no row was taken."""
        if self._first is None:
            raise DataError("a round without rows has no mean: at least one client must report.")
        dtype, shape = self._first
        mean_P = _fresh(shape.numel(), dtype)
        buffer_C = _fresh(min(CHUNK, len(mean_P)), torch.float64)
        for start, mean_C in _chunks(mean_P):
            sum_C = buffer_C[: len(mean_C)]
            if self._total_P is None:
                sum_C.zero_()
            else:
                sum_C.copy_(self._total_P[start : start + CHUNK])
            self._let_go(start, len(mean_C))
            self._add_held(sum_C, start)
            mean_C.copy_(sum_C.div_(self._weight))
        return Aggregate(mean_P)

    def _fold(self) -> None:
        total_P = self._sums(len(self._held[0])) if self._total_P is None else self._total_P
        for start, total_C in _chunks(total_P):
            if self._total_P is None:
                total_C.zero_()
            self._add_held(total_C, start)
            self._let_go(start, len(total_C))
        self._total_P, self._held, self._weights = total_P, [], []

    def _sums(self, size: int) -> Tensor:
        """Return room for so many sums: in memory, or in a file where that is large."""
        n_bytes = size * torch.float64.itemsize
        if n_bytes < FILED_BYTES:
            return _fresh(size, torch.float64)
        with disk_errors(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, n_bytes)  # a disk that is full says so here, and not with a signal
            self._file = mmap.mmap(file.fileno(), n_bytes)
        return torch.frombuffer(self._file, dtype=torch.float64)

    def _let_go(self, start: int, count: int) -> None:
        """Leave sums that lie in a file to it: they are read again when the next row comes."""
        if self._file is not None:
            width = torch.float64.itemsize
            self._file.madvise(mmap.MADV_DONTNEED, start * width, count * width)

    def _add_held(self, sum_C: Tensor, start: int) -> None:
        """Add the held rows' numbers from `start` on, widened to float64 before they are multiplied."""
        for row_P, weight in zip(self._held, self._weights, strict=True):
            sum_C.add_(row_P[start : start + CHUNK], alpha=weight)
        if not is_finite(sum_C):
            self._refuse()

    def _refuse(self) -> None:
        for index, row_P in enumerate(self._held, start=self._count - len(self._held)):
            if not is_finite(row_P):
                raise TrainingError(f"row {index} of the round holds NaN or infinity: allowed are finite numbers.")
        raise TrainingError(f"the sum of {self._count} rows overflows: give smaller weights.")


def _fresh(size: int, dtype: torch.dtype) -> Tensor:
    """Return `size` numbers, not set to anything.

    NumPy asks Linux for huge pages, torch does not: touching new memory for the first time is the dearest part of a
    mean of few rows.
    """
    return torch.from_numpy(np.empty(size * dtype.itemsize, dtype=np.uint8)).view(dtype)


def _chunks(numbers_P: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield where each chunk begins, and the chunk."""
    for start in range(0, len(numbers_P), CHUNK):
        yield start, numbers_P[start : start + CHUNK]


def mean_of(rows_NP: Tensor, weight_N: Tensor) -> Tensor:
    """Return weight_N @ rows_NP [P], computed in float64; rows and weights as in `check_matrix`."""
    check_matrix(rows_NP, weight_N)
    return mixed(rows_NP, weight_N)


def mixed(rows_NP: Tensor, share_N: Tensor) -> Tensor:
    """Return the sum of share times row over the sum of the shares [P]; rows of share 0 are not read.

    No share is negative, and one at least is positive.
    """
    mean = RunningMean(held_bytes=rows_NP.nbytes, held_rows=len(rows_NP))  # they are held by the matrix anyway
    for row_P, share in zip(rows_NP, share_N.tolist(), strict=True):
        if share > 0:
            mean.add(row_P, share)
    return mean.result().row_P


@plugin("mean")
class Mean(Aggregator):
    """The weighted mean: the rows' sum, each times its weight."""

    linear: ClassVar[bool] = True

    def __call__(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Tensor:
        """Return weight_N @ rows_NP, computed in float64."""
        return mean_of(rows_NP, weight_N)

    def accumulator(self, frame: Frame) -> Accumulator:
        """Return a running mean that tells how far apart the rows were."""
        return _Drifting()


class _Drifting(RunningMean):
    """A running mean with the clients' drift, sqrt(sum w ||row - mean||^2 / sum w), as its measure."""

    def __init__(self) -> None:
        super().__init__()
        self._squares = 0.0

    def add(self, row_P: Tensor, weight: float, client: str = "") -> None:
        """Take one row."""
        super().add(row_P, weight, client)
        self._squares += weight * _square(row_P)

    def result(self) -> Aggregate:
        """Return the mean with the drift."""
        done = super().result()
        mean_square = _square(done.row_P)
        variance = self._squares / self._weight - mean_square if self._count > 1 else 0.0
        return replace(done, measures={"drift": math.sqrt(max(0.0, variance))})


def _square(row_P: Tensor) -> float:
    """Return the square of a row's norm; of a large one part by part, as torch widens all that it is given."""
    parts = row_P.split(CHUNK) if len(row_P) > _LARGE else (row_P,)
    return sum(float(torch.linalg.vector_norm(part, dtype=torch.float64)) ** 2 for part in parts)
