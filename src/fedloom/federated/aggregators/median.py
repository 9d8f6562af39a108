"""The median of each number.

Yin et al., 2018, Byzantine-Robust Distributed Learning, https://arxiv.org/abs/1803.01498, Definition 1: the coordinate-
wise median. Of an even number of rows it is the mean of the middle pair. Fewer than half of the rows, whatever they
hold, cannot move a number out of the range of the others.

Deviations: weights are ignored in both variants, as in the paper, so that nobody gains by claiming many examples.
`median_as_published` is what the public code of arXiv 2406.10630 computes: of an even number of rows the lower one of
the middle pair, which is torch's median.
"""

from typing import ClassVar

from torch import Tensor

from fedloom.base.plugin import plugin
from fedloom.contracts.aggregation import Aggregate, Frame
from fedloom.federated.aggregators._columns import Sorted, by_column, middle
from fedloom.federated.aggregators._rows import OfRows

__all__ = ["Median", "MedianAsPublished"]


@plugin("median")
class Median(OfRows):
    """The median of each number, the middle pair averaged."""

    sorts: ClassVar[bool] = True

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the median of each number."""
        return Aggregate(by_column(rows_NP, middle))

    def tolerates(self, n_rows: int) -> int:
        """Return the largest number below half of the rows."""
        return (n_rows - 1) // 2


@plugin("median_as_published")
class MedianAsPublished(OfRows):
    """The median of each number, the lower one of the middle pair."""

    sorts: ClassVar[bool] = True
    outside_theorem: ClassVar[bool] = True
    one_sided: ClassVar[bool] = True

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the lower median of each number."""
        return Aggregate(by_column(rows_NP, _lower))

    def tolerates(self, n_rows: int) -> int:
        """Return the largest number below half of the rows."""
        return (n_rows - 1) // 2


def _lower(block_CN: Sorted) -> Sorted:
    return block_CN[:, (block_CN.shape[1] - 1) // 2]
