"""The mean of rows that are no longer than the median one.

Sun et al., 2019, Can You Really Backdoor Federated Learning?, https://arxiv.org/abs/1911.07963, section 3, "norm
thresholding of updates", with the median of the round's lengths as threshold: the weighted mean of u_i min(1, median
||u|| / ||u_i||). A row counts by its direction, however long it is; fewer than half of the rows cannot move the
threshold out of the range of the others.

Deviations: the paper's threshold is a constant of the run and its noise is left out.
"""

from typing import ClassVar

from torch import Tensor

from fedloom.base.gram import norms
from fedloom.base.plugin import plugin
from fedloom.contracts.aggregation import SHARE, Aggregate, Frame
from fedloom.federated.aggregators._rows import Found, OfRows, told, total_of

__all__ = ["NormClip", "clip_factors"]


def clip_factors(norm_N: Tensor) -> Tensor:
    """Return what each row is multiplied by to be no longer than the median length; 1 for a row of zeros."""
    median = norm_N.quantile(0.5)
    return (median / norm_N.where(norm_N > median, median)).nan_to_num(nan=1.0)


@plugin("norm_clip")
class NormClip(OfRows):
    """The weighted mean of clipped rows."""

    anchored: ClassVar[bool] = True

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the mean of rows that are clipped to the median length."""
        norm_N = norms(rows_NP)
        part_N = weight_N.double() / weight_N.double().sum() * clip_factors(norm_N)
        scores = {"norm": norm_N, SHARE: part_N / part_N.sum()}
        return told(total_of(rows_NP, part_N), frame, Found(scores=scores))

    def tolerates(self, n_rows: int) -> int:
        """Return the largest number below half of the rows."""
        return (n_rows - 1) // 2
