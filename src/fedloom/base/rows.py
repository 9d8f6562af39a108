"""Rows of numbers: which are refused, and many of them as one contiguous matrix.

How many rows a round has is not known in advance, so the matrix grows by doubling: in memory up to a limit, beyond it
in a temporary file that has no name where the system allows it, and so never stays behind.
"""

import math
import shutil
import tempfile
import weakref
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedloom.base.errors import DataError, MemoryExceededError, TrainingError

__all__ = ["RowMatrix", "check_finite", "check_matrix", "check_row", "is_finite"]

_FIRST_ROWS = 4
_TOLERANCE = 1e-5
"""How far from 1 the sum of float32 weights may lie."""


def is_finite(numbers: Tensor) -> bool:
    """Return whether all numbers are finite, at the speed of reading them.

    NaN and infinity make every sum that they enter NaN or infinite. A sum of finite numbers that overflows does too,
    hence the second, slow look.
    """
    return math.isfinite(float(numbers.sum())) or bool(torch.isfinite(numbers).all())


def check_matrix(rows_NP: Tensor, weight_N: Tensor, *, finite: bool = True) -> None:
    """Refuse rows and weights of odd shapes or dtypes, NaN, infinity, and weights that do not sum to 1.

    Raises TrainingError for rows that are not finite, DataError for all else. Whoever sorts all numbers sees there
    whether they are `finite`, and asks `check_finite` only if not.
    """
    if rows_NP.ndim != 2 or len(rows_NP) == 0:
        raise DataError(f"rows of shape {tuple(rows_NP.shape)} have no aggregate: allowed is [N, P] with N >= 1.")
    if weight_N.shape != rows_NP.shape[:1]:
        raise DataError(f"{len(rows_NP)} rows have weights of shape {tuple(weight_N.shape)}: give one each.")
    if not rows_NP.is_floating_point() or weight_N.dtype != rows_NP.dtype:
        raise DataError(f"rows are {rows_NP.dtype} and weights {weight_N.dtype}: both must be of one floating type.")
    if finite:
        check_finite(rows_NP)
    wrong = (~(torch.isfinite(weight_N) & (weight_N > 0))).nonzero().flatten().tolist()
    if wrong:
        raise DataError(f"weights {wrong} are {[float(weight_N[index]) for index in wrong]}: allowed is > 0.")
    total = float(weight_N.sum(dtype=torch.float64))
    if abs(total - 1) > _TOLERANCE:
        raise DataError(f"weights sum to {total:g}: allowed is 1; divide them by their sum.")


def check_finite(rows_NP: Tensor) -> None:
    """Refuse rows that hold NaN or infinity with TrainingError."""
    odd = [index for index, row_P in enumerate(rows_NP) if not is_finite(row_P)]
    if odd:
        raise TrainingError(f"rows {odd} hold NaN or infinity: allowed are finite numbers.")


def check_row(row_P: Tensor, weight: float, first: tuple[torch.dtype, torch.Size] | None, *, index: int) -> None:
    """Refuse the row of that index in a round; `first` is dtype and shape of the round's first row, if there was one.

    Whether its numbers are finite is left to who reads them. Raises DataError.
    """
    where = f"row {index} of the round"
    if row_P.ndim != 1 or row_P.dtype not in (torch.float32, torch.float64):
        found = f"shape {tuple(row_P.shape)} and is {row_P.dtype}"
        raise DataError(f"{where} has {found}: allowed is [P], float32 or float64.")
    if first is not None and (row_P.dtype, row_P.shape) != first:
        raise DataError(
            f"{where} has shape {tuple(row_P.shape)} and is {row_P.dtype}, "
            f"the first row has {tuple(first[1])} and is {first[0]}: all must be alike."
        )
    if not 0 < weight < float("inf"):
        raise DataError(f"{where} has weight {weight:g}: allowed is a finite number > 0.")


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
            f"rows of {n_bytes:,} bytes exceed limit_bytes, what is kept in memory, and the folder for temporary files "
            f"has {free_bytes:,} bytes left: let TMPDIR name a larger one, raise the limit, or sample fewer clients."
        )
