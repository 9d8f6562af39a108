"""Krum's choice of rows, then of each number the mean of the values nearest to their median.

El Mhamdi et al., 2018, The Hidden Vulnerability of Distributed Learning in Byzantium, https://arxiv.org/abs/1802.07927,
section 4: Krum is asked n - 2f times, each time of the rows that are left, and its choices are gathered. Of each number
the n - 4f gathered values nearest to the median are averaged. With n >= 4f + 3 rows a number lies near the values of
honest rows, however many numbers there are.

Deviations: the distances of rows that are left are those of the first pass over all rows. Krum is asked of as few as
2f + 1 rows, of which it would count n - f - 2 < 1 neighbours: it counts one at least. Equal scores go to the row
nearer to all others that are left. With f = 0 nothing is dropped, and the aggregate is the weighted mean; with f > 0
values are averaged alike. f may be estimated (`_suspects`), from Krum's scores of all rows with the largest f
that the theorem allows.
"""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from fedloom.base.gram import squared_distances
from fedloom.base.plugin import plugin
from fedloom.base.tree import Layout
from fedloom.contracts.aggregation import Aggregate, Frame
from fedloom.federated.aggregators._columns import Sorted, by_column, mean_over, middle
from fedloom.federated.aggregators._products import Of, check_of, gram_of
from fedloom.federated.aggregators._rows import Found, told
from fedloom.federated.aggregators._suspects import Bearing, ranked
from fedloom.federated.aggregators.krum import krum_scores
from fedloom.federated.aggregators.mean import mean_of

__all__ = ["Bulyan"]

_REASON = "Krum preferred the rows of other clients"


@plugin("bulyan")
class Bulyan(Bearing):
    """Krum's choices, averaged number by number around their median."""

    of: Of = "row"
    """What Krum compares rows by: their numbers, or the products of their low-rank factors (`_products`)."""

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the mean around the median of the rows that Krum chooses."""
        n_rows, distance_NN = len(rows_NP), squared_distances(gram_of(self.of, rows_NP, frame))
        most = (n_rows - 3) // 4
        f = self.suspects(krum_scores(distance_NN, n_rows - most - 2), most)
        chosen = _choices(distance_NN, f)
        nearest = _nearest(n_rows - 4 * f)
        row_P = by_column(rows_NP, nearest, chosen=chosen) if f else mean_of(rows_NP, weight_N)
        scores = {"score": krum_scores(distance_NN, n_rows - f - 2)}
        left_out = {index: _REASON for index in range(n_rows) if index not in chosen}
        return told(row_P, frame, Found(scores=scores, left_out=left_out, measures=self.measured(f)))

    def least_rows(self) -> int:
        """Return 4 f + 3; of an estimated f, which may be 0, 3."""
        return 3 if self.estimate else 4 * self.f + 3

    def tolerates(self, n_rows: int) -> int:
        """Return f, where it is set."""
        return 0 if self.estimate else self.f

    def check_layout(self, layout: Layout) -> None:
        """Refuse rows without the factors that are compared."""
        check_of(self.of, layout)


def _choices(distance_NN: Tensor, f: int) -> list[int]:
    """Return the n - 2f rows that Krum takes, one after another, each of those that are left."""
    left, chosen = list(range(len(distance_NN))), list[int]()
    for _ in range(len(distance_NN) - 2 * f):
        among_MM = distance_NN[left][:, left]
        score_M = krum_scores(among_MM, max(1, len(left) - f - 2))
        chosen.append(left.pop(ranked(score_M, among_MM.sum(1))[0]))
    return sorted(chosen)


def _nearest(count: int) -> Callable[[Sorted], Sorted]:
    """Return what gives the mean of so many values nearest to the median: sorted, they are neighbours."""

    def mean(block_CM: Sorted) -> Sorted:
        median_C1 = middle(block_CM)[:, None]
        low_CS, high_CS = block_CM[:, : block_CM.shape[1] - count + 1], block_CM[:, count - 1 :]
        start_C1 = np.maximum(median_C1 - low_CS, high_CS - median_C1).argmin(axis=1)[:, None]
        return mean_over(np.take_along_axis(block_CM, start_C1 + np.arange(count), axis=1))

    return mean
