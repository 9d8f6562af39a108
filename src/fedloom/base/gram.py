"""Inner products of all pairs of rows in one pass, and the distances and cosines that follow from them.

float32 rows are multiplied as float32, some columns at a time that fit the cache, and the parts are added up in
float64: an inner product is off by about 1e-7 of the product of its two lengths, whatever the other rows hold, and no
second matrix is made. float64 rows stay float64. A squared distance is a difference of inner products: for two rows
much nearer to each other than to zero it is as uncertain as those.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedloom.base.errors import TrainingError
from fedloom.base.rows import is_finite

__all__ = ["centred", "cosines", "gram", "norms", "squared_distances"]

_COLUMNS = 1 << 14
"""Of the rows, multiplied at a time: float32 sums of so few lose little."""


def gram(rows: Tensor | Sequence[Tensor], *, exact: bool = False) -> Tensor:
    """Return all inner products of rows [N, N] in float64, `exact` ones from products in float64 too.

    Raises TrainingError where they overflow even that.
    """
    gram_NN = _summed(rows, torch.float64 if exact else rows[0].dtype)
    if not is_finite(gram_NN):  # squares of what float32 holds may be beyond float32
        gram_NN = _summed(rows, torch.float64)
    if not is_finite(gram_NN):
        raise TrainingError(f"the inner products of {len(rows)} rows overflow: allowed are numbers below 1e150.")
    return (gram_NN + gram_NN.T) / 2


def _summed(rows: Tensor | Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    gram_NN = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for start in range(0, len(rows[0]), _COLUMNS):
        part_NC = _part(rows, slice(start, start + _COLUMNS)).to(dtype)
        gram_NN += part_NC @ part_NC.T
    return gram_NN


def _part(rows: Tensor | Sequence[Tensor], columns: slice) -> Tensor:
    return rows[:, columns] if isinstance(rows, Tensor) else torch.stack([row_P[columns] for row_P in rows])


def norms(rows_NP: Tensor) -> Tensor:
    """Return the length of each row [N] in float64; TrainingError where its square overflows even that."""
    return torch.cat([gram(row_P[None])[0] for row_P in rows_NP]).sqrt()


def squared_distances(gram_NN: Tensor) -> Tensor:
    """Return all squared distances of rows [N, N]; rounding makes none of them negative."""
    square_N = gram_NN.diagonal()
    distance_NN = (square_N[:, None] + square_N[None, :] - 2 * gram_NN).clamp(min=0)
    return distance_NN.fill_diagonal_(0)


def cosines(gram_NN: Tensor) -> Tensor:
    """Return all cosines of rows [N, N]; NaN beside a row of zeros."""
    norm_N = gram_NN.diagonal().sqrt()
    return (gram_NN / norm_N.outer(norm_N)).clamp(-1, 1)


def centred(gram_NN: Tensor) -> Tensor:
    """Return the inner products of the rows less their mean."""
    mean_N = gram_NN.mean(0)
    return gram_NN - mean_N[:, None] - mean_N[None, :] + mean_N.mean()
