"""Rules number by number, at the speed of a sort in the cache.

Some columns of the matrix are turned, so that the values of one number lie side by side, and sorted there. A block fits
the cache, and besides it there is only the result. Sorted values show NaN and infinity at their ends.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedloom.base.rows import check_finite

__all__ = ["Sorted", "by_column", "mean_over", "middle"]

Sorted = NDArray[np.floating]
"""[C, N]: of each of C numbers the values of N rows, rising."""

_BLOCK_BYTES = 1 << 18


def by_column(rows_NP: Tensor, of_sorted: Callable[[Sorted], Sorted], *, chosen: Sequence[int] = ()) -> Tensor:
    """Return [P]: `of_sorted` gives one value for each number from its sorted values; of the `chosen` rows, or of all.

    The block that it is given is its own. Raises TrainingError for rows that are not finite.
    """
    values_NP = rows_NP.numpy()
    which = list(chosen) if chosen else slice(None)
    n_rows, size = len(chosen) or len(values_NP), values_NP.shape[1]
    width = max(64, _BLOCK_BYTES // (values_NP.itemsize * n_rows))
    result_P = np.empty(size, dtype=values_NP.dtype)
    for start in range(0, size, width):
        block_CN = np.array(values_NP[which, start : start + width].T, order="C")
        block_CN.sort(axis=1)
        if not np.isfinite(block_CN[:, [0, -1]]).all():
            check_finite(rows_NP)
        result_P[start : start + width] = of_sorted(block_CN)
    return torch.from_numpy(result_P)


def middle(rising: Sorted) -> Sorted:
    """Return the median over the last axis of sorted values, of an even number of them the mean of the middle pair."""
    count = rising.shape[-1]
    return rising[..., (count - 1) // 2] / 2 + rising[..., count // 2] / 2


def mean_over(block_CK: Sorted) -> Sorted:
    """Return the mean [C] of K values of each number, summed in float64."""
    n_values = block_CK.shape[1]
    return block_CK.astype(np.float64) @ np.ones(n_values) / n_values
