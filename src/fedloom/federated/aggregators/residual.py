"""Rows weighted by how near their values lie to a line through all values of each number.

Fu et al., 2019, Attack-Resistant Federated Learning with Residual-based Reweighting,
https://arxiv.org/abs/1912.11464, Algorithms 1 and 2 (IRLS). For each number the n values, sorted, are y_1 <= ... <= y_n
over their ranks x = 1 ... n:

    line b_0 + b_1 x by repeated medians: b_1 = median_i median_{j != i} (y_j - y_i) / (j - i),
                                          b_0 = median_i (y_i - b_1 x_i)
    r_i = y_i - b_0 - b_1 x_i;  tau = 1.4826 (1 + 5 / (n - 1)) median |r|;  e_i = r_i / tau
    a_i = sqrt(1 - h_i) / e_i  Psi(e_i / sqrt(1 - h_i)),  Psi clips to +-K,  K = lambda sqrt(2 / n),
          h_i the leverage of rank i in a straight line

A value with a_i < delta becomes the line's. A row's score is the sum over numbers of a_i times the standard deviation
of the number's n values of a; divided by the largest score, squared and divided by their sum, scores are the shares of
the rows so mended.

Deviations: a is written min(1, K sqrt(1 - h) tau / |r|), the same without a division by zero. Scores are summed over
the whole row, not layer by layer. Weights are ignored: shares are the rule's own. A line needs 4 rows: of 3 it always
passes through the outer two values, so that tau is 0 and the middle one counts nothing. Where no number says anything,
as of equal rows, all rows count alike. The line is kept in the rows' dtype.

`residual_as_published` is what the public code of arXiv 2406.10630 computes, delta = 0.05, without its writing into the
rows that clients sent; of one or two rows it takes the mean.

Speed: repeated medians look at N^2 slopes of each number, by far the dearest of the robust rules.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedloom.base.plugin import Fraction, Positive, plugin
from fedloom.contracts.aggregation import SHARE, Aggregate, Frame
from fedloom.federated.aggregators._columns import middle
from fedloom.federated.aggregators._rows import Found, OfRows, told

__all__ = ["Residual", "ResidualAsPublished"]

Array = NDArray[np.float64]
_SLOPES = 1 << 18
"""Looked at at a time."""


class Reweighting(OfRows):
    """What both variants share: all but the numbers they are set to."""

    @abstractmethod
    def settings(self) -> tuple[float, float]:
        """Return lambda and delta."""

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the mean of the mended rows by their shares."""
        values_NP = rows_NP.numpy()
        line_2P = np.zeros((2, values_NP.shape[1]), dtype=values_NP.dtype)
        trust_N = self._trust(values_NP, line_2P) if len(values_NP) > 2 else np.ones(len(values_NP))
        share_N = trust_N**2 / (trust_N**2).sum()
        row_P = torch.from_numpy(self._mixed(values_NP, line_2P, share_N))
        scores = {"trust": torch.from_numpy(trust_N), SHARE: torch.from_numpy(share_N)}
        return told(row_P, frame, Found(scores=scores))

    def _trust(self, values_NP: NDArray[Any], line_2P: NDArray[Any]) -> Array:
        """Return the scores over their largest, and fill in the line of each number."""
        score_N, (strictness, _) = np.zeros(len(values_NP)), self.settings()
        for place, block_CN in _blocks(values_NP):
            order_CN = block_CN.argsort(axis=1)
            sorted_CN = np.take_along_axis(block_CN, order_CN, axis=1)
            line_2P[:, place] = _line(sorted_CN)
            near_CN = _near(sorted_CN, line_2P[:, place].astype(np.float64), strictness)[0]
            weighed_CN = near_CN * near_CN.std(axis=1, ddof=1, keepdims=True)
            score_N += np.bincount(order_CN.ravel(), weighed_CN.ravel(), minlength=len(score_N))
        return score_N / score_N.max() if score_N.max() > 0 else np.ones(len(score_N))

    def _mixed(self, values_NP: NDArray[Any], line_2P: NDArray[Any], share_N: Array) -> NDArray[Any]:
        """Return the sum of share times mended row."""
        row_P, (strictness, delta) = np.empty_like(values_NP[0]), self.settings()
        for place, block_CN in _blocks(values_NP):
            if len(share_N) > 2:
                order_CN = block_CN.argsort(axis=1)
                sorted_CN = np.take_along_axis(block_CN, order_CN, axis=1)
                near_CN, fitted_CN = _near(sorted_CN, line_2P[:, place].astype(np.float64), strictness)
                np.put_along_axis(block_CN, order_CN, np.where(near_CN < delta, fitted_CN, sorted_CN), axis=1)
            row_P[place] = block_CN @ share_N
        return row_P


@plugin("residual")
class Residual(Reweighting):
    """Rows weighted by their residuals, far values mended."""

    strictness: Positive = 2.0
    """The paper's lambda: the smaller, the sooner a value counts less."""
    delta: Fraction = 0.1
    """A value that counts less than this becomes the line's."""

    def settings(self) -> tuple[float, float]:
        """Return lambda and delta."""
        return self.strictness, self.delta

    def least_rows(self) -> int:
        """Return 4: of three values the line passes through the outer two, whatever they are."""
        return 4

    def tolerates(self, n_rows: int) -> int:
        """Return the largest number below half of the other rows, of which each inner median is taken."""
        return max(0, (n_rows - 2) // 2)


@plugin("residual_as_published")
class ResidualAsPublished(Reweighting):
    """The same with delta = 0.05, of any number of rows."""

    outside_theorem: ClassVar[bool] = True

    def settings(self) -> tuple[float, float]:
        """Return lambda and delta."""
        return 2.0, 0.05


def _blocks(values_NP: NDArray[Any]) -> Iterator[tuple[slice, Array]]:
    """Yield some numbers at a time, the values of one side by side, in a copy."""
    n_rows, size = values_NP.shape
    width = max(1, _SLOPES // n_rows**2)
    for start in range(0, size, width):
        place = slice(start, min(start + width, size))
        yield place, np.array(values_NP[:, place].T, dtype=np.float64, order="C")


def _median(values: Array) -> Array:
    return np.asarray(middle(np.sort(values, axis=-1)), dtype=np.float64)


def _line(sorted_CN: Array) -> Array:
    """Return b_0 and b_1 [2, C] by repeated medians."""
    n_rows = sorted_CN.shape[1]
    other_NM = np.array([[j for j in range(n_rows) if j != i] for i in range(n_rows)])
    rise_CNM = sorted_CN[:, other_NM] - sorted_CN[:, :, None]
    slope_C = _median(_median(rise_CNM / (other_NM - np.arange(n_rows)[:, None])))
    return np.stack([_median(sorted_CN - slope_C[:, None] * np.arange(1, n_rows + 1)), slope_C])


def _near(sorted_CN: Array, line_2C: Array, strictness: float) -> tuple[Array, Array]:
    """Return a [C, N], how near each value lies to the line, and the line's values [C, N]."""
    n_rows = sorted_CN.shape[1]
    rank_N = np.arange(1, n_rows + 1)
    fitted_CN = line_2C[0][:, None] + line_2C[1][:, None] * rank_N
    far_CN = np.abs(sorted_CN - fitted_CN)
    tau_C1 = 1.4826 * (1 + 5 / (n_rows - 1)) * _median(far_CN)[:, None]
    from_mean_N = rank_N - rank_N.mean()
    leverage_N = 1 / n_rows + from_mean_N**2 / (from_mean_N**2).sum()
    limit_CN = strictness * np.sqrt(2 / n_rows) * np.sqrt(1 - leverage_N) * tau_C1
    near_CN = np.divide(limit_CN, far_CN, out=np.ones_like(far_CN), where=far_CN > limit_CN)
    return near_CN, fitted_CN
