"""The mean of each number without its beta largest and its beta smallest values.

Yin et al., 2018, Byzantine-Robust Distributed Learning, https://arxiv.org/abs/1803.01498, Definition 2, with beta as a
number of rows and not as a share of them. It needs n > 2 beta rows; then beta of them, whatever they hold, cannot move
a number out of the range of the others.

Deviations: what is left of a number's values is averaged alike, as in the paper: weights are ignored, so that nobody
gains by claiming many examples. With beta = 0 nothing is trimmed and the aggregate is the weighted mean. Sums are taken
in float64. `trimmed_mean_as_published` is what the public code of arXiv 2406.10630 computes: beta = 1 for any number of
rows; of 3 it is the median, so that two rows of the published tables are two runs of one algorithm. Of one or two rows
it takes the mean.
"""

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from fedloom.base.plugin import Count, plugin
from fedloom.contracts.aggregation import Aggregate, Frame
from fedloom.federated.aggregators._columns import Sorted, by_column, mean_over
from fedloom.federated.aggregators._rows import OfRows
from fedloom.federated.aggregators.mean import mean_of

__all__ = ["TrimmedMean", "TrimmedMeanAsPublished"]


@plugin("trimmed_mean")
class TrimmedMean(OfRows):
    """The mean of the values of each number that are left."""

    sorts: ClassVar[bool] = True  # with beta = 0 `mean_of` looks itself

    beta: Count = 1
    """Values dropped at either end of each number."""

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the trimmed mean of each number."""
        return Aggregate(by_column(rows_NP, _trimmed(self.beta)) if self.beta else mean_of(rows_NP, weight_N))

    def least_rows(self) -> int:
        """Return 2 beta + 1."""
        return 2 * self.beta + 1

    def tolerates(self, n_rows: int) -> int:
        """Return beta."""
        return self.beta


@plugin("trimmed_mean_as_published")
class TrimmedMeanAsPublished(OfRows):
    """The mean of each number without its largest and its smallest value."""

    sorts: ClassVar[bool] = True
    outside_theorem: ClassVar[bool] = True

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the trimmed mean of each number."""
        return Aggregate(by_column(rows_NP, _trimmed(1 if len(rows_NP) > 2 else 0)))

    def tolerates(self, n_rows: int) -> int:
        """Return 1, of three rows or more."""
        return 1 if n_rows > 2 else 0


def _trimmed(beta: int) -> Callable[[Sorted], Sorted]:
    def mean(block_CN: Sorted) -> Sorted:
        return mean_over(block_CN[:, beta : block_CN.shape[1] - beta])

    return mean
