"""What every aggregator refuses before it computes."""

import torch
from torch import Tensor

from fedloom.errors import DataError, TrainingError

__all__ = ["CHUNK", "check_matrix", "check_row"]

CHUNK = 1 << 18
"""Numbers of a row handled at a time: torch makes temporary copies, and one of a whole row would double the memory."""

_TOLERANCE = 1e-5
"""How far from 1 the sum of float32 weights may lie."""


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
    odd = (~torch.isfinite(rows_NP).all(dim=1)).nonzero().flatten().tolist()
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

    Raises TrainingError for a row that is not finite, DataError for all else.
    """
    where = f"row {index} of the round"
    if row_P.ndim != 1 or not row_P.is_floating_point():
        raise DataError(f"{where} has shape {tuple(row_P.shape)} and is {row_P.dtype}: allowed is [P], floating.")
    if first is not None and (row_P.dtype, row_P.shape) != first:
        raise DataError(
            f"{where} has shape {tuple(row_P.shape)} and is {row_P.dtype}, "
            f"the first row has {tuple(first[1])} and is {first[0]}: all must be alike."
        )
    if not all(bool(torch.isfinite(part).all()) for part in row_P.split(CHUNK)):
        raise TrainingError(f"{where} holds NaN or infinity: allowed are finite numbers.")
    if not 0 < weight < float("inf"):
        raise DataError(f"{where} has weight {weight:g}: allowed is a finite number > 0.")
