"""The rows of a round as one contiguous matrix, for aggregators that need all of them at once.

N is not known in advance, so the matrix grows by doubling: in memory up to a limit, beyond it in a temporary file that
has no name where the system allows it, and so never stays behind.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedloom.base.errors import DataError, MemoryExceededError, TrainingError
from fedloom.federated.aggregators._checks import check_row, is_finite

__all__ = ["Aggregate", "GatheringAccumulator", "RowMatrix"]

_FIRST_ROWS = 4

Aggregate = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, float]]]
"""From rows [N, P] and weights [N] that sum to 1 to a row [P] and what it cost."""


class RowMatrix:
    """Rows [N, P] of one dtype and length; above `limit_bytes` they lie in a memory-mapped file.

    The file is in the system's folder for temporary files (`TMPDIR`); MemoryExceededError if that is too full.
    """

    def __init__(self, first_P: Tensor, *, limit_bytes: float) -> None:
        self._limit_bytes = limit_bytes
        self._file: IO[bytes] | None = None
        self._count = 0
        self._matrix = np.empty((0, len(first_P)), dtype=first_P.numpy().dtype)

    @property
    def rows_NP(self) -> Tensor:
        """All rows so far, as a view: the next row may move them."""
        return torch.from_numpy(self._matrix[: self._count])

    @property
    def in_file(self) -> bool:
        """Whether the rows lie in a file."""
        return self._file is not None

    def append(self, row_P: Tensor) -> None:
        """Copy one row behind the others."""
        if self._count == len(self._matrix):
            self._matrix = self._grown(max(_FIRST_ROWS, 2 * self._count))
        self._matrix[self._count] = row_P.numpy()
        self._count += 1

    def _grown(self, n_rows: int) -> NDArray[Any]:
        """Return room for `n_rows` that holds what is there."""
        shape, dtype = (n_rows, self._matrix.shape[1]), self._matrix.dtype
        n_bytes = shape[0] * shape[1] * dtype.itemsize
        if self._file is not None:  # longer, with the same content
            return np.memmap(self._file, dtype, "r+", shape=shape)
        if n_bytes > self._limit_bytes:
            _check_room(n_bytes)
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed together with this object
            weakref.finalize(self, self._file.close)
        matrix = np.memmap(self._file, dtype, "w+", shape=shape) if self._file else np.empty(shape, dtype)
        matrix[: self._count] = self._matrix
        return matrix


def _check_room(n_bytes: int) -> None:
    free_bytes = shutil.disk_usage(tempfile.gettempdir()).free
    if n_bytes > free_bytes:
        raise MemoryExceededError(
            f"rows of {n_bytes:,} bytes exceed the aggregator's limit_bytes, and the folder for temporary files has "
            f"{free_bytes:,} bytes left: let TMPDIR name a larger one, raise limit_bytes, or sample fewer clients."
        )


class GatheringAccumulator:
    """Gathers all rows, then hands the matrix to `aggregate`."""

    def __init__(self, aggregate: Aggregate, *, limit_bytes: float) -> None:
        self._aggregate = aggregate
        self._limit_bytes = limit_bytes
        self._rows: RowMatrix | None = None
        self._first: tuple[torch.dtype, torch.Size] | None = None
        self._weights: list[float] = []
        self._measures: dict[str, float] = {}

    def add(self, row_P: Tensor, weight: float) -> None:
        """Copy one row; raises DataError if it is unlike the first one, TrainingError if it is not finite."""
        check_row(row_P, weight, self._first, index=len(self._weights))
        if not is_finite(row_P):
            where = f"row {len(self._weights)} of the round"
            raise TrainingError(f"{where} holds NaN or infinity: allowed are finite numbers.")
        if self._rows is None:
            self._rows = RowMatrix(row_P, limit_bytes=self._limit_bytes)
            self._first = (row_P.dtype, row_P.shape)
        self._rows.append(row_P)
        self._weights.append(weight)

    def result(self) -> Tensor:
        """Return the aggregate [P]; raises DataError if no row was taken."""
        if self._rows is None:
            raise DataError("a round without rows has no aggregate: at least one client must report.")
        rows_NP, weight_N = self._rows.rows_NP, torch.tensor(self._weights, dtype=torch.float64)
        row_P, self._measures = self._aggregate(rows_NP, (weight_N / weight_N.sum()).to(rows_NP.dtype))
        return row_P

    def measures(self) -> dict[str, float]:
        """Return what the last result cost."""
        return dict(self._measures)
