"""What every aggregator refuses before it computes."""

import math

import torch
from torch import Tensor

from fedloom.base.errors import DataError, TrainingError

__all__ = ["check_matrix", "check_row", "is_finite"]

_TOLERANCE = 1e-5
"""How far from 1 the sum of float32 weights may lie."""


def is_finite(numbers: Tensor) -> bool:
    """Return whether all numbers are finite, at the speed of reading them.

    NaN and infinity make every sum that they enter NaN or infinite. A sum of finite numbers that overflows does too,
    hence the second, slow look.
    """
    return math.isfinite(float(numbers.sum())) or bool(torch.isfinite(numbers).all())


def check_matrix(rows_NP: Tensor, weight_N: Tensor) -> None:
    """Refuse rows and weights of odd shapes or dtypes, NaN, infinity, and weights that do not sum to 1.

    Raises TrainingError for rows that are not finite, DataError for all else.
    """
    if rows_NP.ndim != 2 or len(rows_NP) == 0:
        raise DataError(f"rows of shape {tuple(rows_NP.shape)} have no aggregate: allowed is [N, P] with N >= 1.")
    if weight_N.shape != rows_NP.shape[:1]:
        raise DataError(f"{len(rows_NP)} rows have weights of shape {tuple(weight_N.shape)}: give one each.")
    if not rows_NP.is_floating_point() or weight_N.dtype != rows_NP.dtype:
        raise DataError(f"rows are {rows_NP.dtype} and weights {weight_N.dtype}: both must be of one floating type.")
    odd = [index for index, row_P in enumerate(rows_NP) if not is_finite(row_P)]
    if odd:
        raise TrainingError(f"rows {odd} hold NaN or infinity: allowed are finite numbers.")
    wrong = (~(torch.isfinite(weight_N) & (weight_N > 0))).nonzero().flatten().tolist()
    if wrong:
        raise DataError(f"weights {wrong} are {[float(weight_N[index]) for index in wrong]}: allowed is > 0.")
    total = float(weight_N.sum(dtype=torch.float64))
    if abs(total - 1) > _TOLERANCE:
        raise DataError(f"weights sum to {total:g}: allowed is 1; divide them by their sum.")


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
