"""The row, or the rows, with the nearest neighbours.

Blanchard et al., 2017, Machine Learning with Adversaries, https://arxiv.org/abs/1703.02757, section 4: the score of a
row is the sum of its *squared* distances to the n - f - 2 rows nearest to it, its own not among them. Krum takes the
row of the smallest score, Multi-Krum the mean of the m rows of the smallest. With n >= 2f + 3 rows, f of which may hold
anything, what is taken lies among the others.

Deviations: m rows are averaged by their weights divided by their sum, so that m = n is `mean`. Equal scores, as of the
nearest pair where one neighbour counts, go to the row nearer to all others. f may be estimated (`_suspects`), from
scores with the largest f that the theorem allows. With `of = "product"` distances are those of what the low-rank layers
compute (`_products`). A row far from all others is dropped; attackers who stay near the honest rows are not.

`krum_as_published` is what the public code of arXiv 2406.10630 computes: distances not squared, n - f - 1 neighbours,
and the winner averaged with them, so that of 3 rows with f = 1 it is the mean of the nearest pair. As it averages
n - f rows there is no second name for Multi-Krum. There p is uniform: `weighting = "uniform"`.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedloom.base.gram import squared_distances
from fedloom.base.plugin import Count, plugin
from fedloom.base.tree import Layout
from fedloom.contracts.aggregation import Aggregate, Frame
from fedloom.federated.aggregators._products import Of, check_of, gram_of
from fedloom.federated.aggregators._rows import Found, OfRows, selected
from fedloom.federated.aggregators._suspects import Bearing, ranked

__all__ = ["Krum", "KrumAsPublished", "MultiKrum", "krum_scores"]

_REASON = "rows of other clients have nearer neighbours"


def krum_scores(distance_NN: Tensor, neighbours: int) -> Tensor:
    """Return the sum [N] of the distances to so many nearest others."""
    return distance_NN.sort(dim=1).values[:, 1 : 1 + neighbours].sum(1)  # the first one is a row's own


@dataclass(frozen=True, kw_only=True)
class ByNeighbours(Bearing):
    """What Krum and Multi-Krum share: all but how many rows are taken."""

    of: Of = "row"
    """What rows are compared by: their numbers, or the products of their low-rank factors (`_products`)."""

    @abstractmethod
    def taken(self, n_rows: int, f: int) -> int:
        """Return how many rows are averaged."""

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the mean of the rows with the nearest neighbours."""
        n_rows, distance_NN = len(rows_NP), squared_distances(gram_of(self.of, rows_NP, frame))
        most = (n_rows - 3) // 2
        f = self.suspects(krum_scores(distance_NN, n_rows - most - 2), most)
        score_N = krum_scores(distance_NN, n_rows - f - 2)
        keep = ranked(score_N, distance_NN.sum(1))[: self.taken(n_rows, f)]
        found = Found(scores={"score": score_N}, measures=self.measured(f))
        return selected(rows_NP, weight_N, frame, keep, reason=_REASON, found=found)

    def least_rows(self) -> int:
        """Return 2 f + 3; of an estimated f, which may be 0, 3."""
        return 3 if self.estimate else 2 * self.f + 3

    def check_layout(self, layout: Layout) -> None:
        """Refuse rows without the factors that are compared."""
        check_of(self.of, layout)


@plugin("krum")
class Krum(ByNeighbours):
    """The row with the nearest neighbours."""

    def taken(self, n_rows: int, f: int) -> int:
        """Return 1."""
        return 1

    def tolerates(self, n_rows: int) -> int:
        """Return f, where it is set."""
        return 0 if self.estimate else self.f


@plugin("multi_krum")
class MultiKrum(ByNeighbours):
    """The mean of the m rows with the nearest neighbours."""

    m: Count = 0
    """Rows that are averaged; 0: all but f."""

    def taken(self, n_rows: int, f: int) -> int:
        """Return m, or n - f."""
        return self.m or n_rows - f

    def least_rows(self) -> int:
        """Return 2 f + 3, or m if that is more."""
        return max(super().least_rows(), self.m)

    def tolerates(self, n_rows: int) -> int:
        """Return f, where it is set and no more than n - f rows are averaged."""
        return 0 if self.estimate or self.m > n_rows - self.f else self.f


@plugin("krum_as_published")
class KrumAsPublished(OfRows):
    """The winner of unsquared distances, averaged with its n - f - 1 neighbours."""

    outside_theorem: ClassVar[bool] = True

    f: Count = 1
    """Attackers among the rows of a round."""

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the mean of the winner and its neighbours."""
        distance_NN = squared_distances(gram_of("row", rows_NP, frame)).sqrt()
        neighbours = max(0, len(rows_NP) - self.f - 1)
        score_N = krum_scores(distance_NN, neighbours)
        winner = ranked(score_N, distance_NN.sum(1))[0]
        near = ranked(distance_NN[winner], distance_NN.sum(1))
        keep = [winner, *(index for index in near if index != winner)][: 1 + neighbours]
        return selected(rows_NP, weight_N, frame, keep, reason=_REASON, found=Found(scores={"score": score_N}))
