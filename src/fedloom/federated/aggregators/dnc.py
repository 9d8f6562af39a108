"""Rows without those that lie farthest along the direction in which rows differ most.

DnC, Shejwalkar and Houmansadr, 2021, Manipulating the Byzantine, NDSS, https://doi.org/10.14722/ndss.2021.24498,
Algorithm 2. In each iteration b numbers of the rows are drawn and centred on their mean, v is the top right-singular
vector, the score of a row is (u_i . v)^2, and the c f rows of the highest scores are dropped. What no iteration drops
is averaged.

Deviations: the score is the top eigenvalue times the squared entry of its eigenvector of the centred inner products
[N, N], the same without the vector v. c f is rounded up. Rows are averaged by their weights, so that f = 0 is `mean`.
With all numbers (coordinates = 0, or no more of them than b) every iteration would be the same one: there is one. Each
iteration may drop other rows: where none is left, the aggregate is a row of zeros. f may be estimated (`_suspects`) in
each iteration; the largest one is told. With `of = "product"` rows are compared by what their low-rank layers compute
(`_products`), of all numbers only: a draw of numbers has no products. No bound is claimed: an iteration looks along one
direction, and attackers far out in others can hide behind it, or in numbers that are not drawn.

`dnc_as_published` is what the public code of arXiv 2406.10630 computes: one iteration, c = 1, 10,000 numbers; at least
one row is kept.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from fedloom.base import rng
from fedloom.base.errors import ConfigError
from fedloom.base.gram import centred, gram
from fedloom.base.plugin import AtLeast, Count, Positive, plugin
from fedloom.base.tree import Layout
from fedloom.contracts.aggregation import Aggregate, Frame
from fedloom.federated.aggregators._products import Of, check_of, gram_of
from fedloom.federated.aggregators._rows import Found, OfRows, selected
from fedloom.federated.aggregators._suspects import Bearing, ranked

__all__ = ["DnC", "DnCAsPublished"]

_REASON = "lies far along the direction in which the rows differ most"
_NUMBERS = 10_000


@plugin("dnc")
class DnC(Bearing):
    """The mean of the rows that no iteration drops."""

    iterations: AtLeast = 5
    """Times that coordinates are drawn."""
    coordinates: Count = _NUMBERS
    """Numbers of a row that are drawn in each iteration; 0: all."""
    c: Positive = 1.0
    """Rows dropped in an iteration for each attacker."""
    of: Of = "row"
    """What rows are compared by: their numbers, or the products of their low-rank factors (`_products`)."""

    def check(self) -> None:
        """Refuse products of a draw of numbers."""
        if self.of == "product" and self.coordinates:
            raise ConfigError(
                f"aggregator.coordinates: found {self.coordinates} with of = 'product'; products need all numbers: "
                "set coordinates to 0."
            )

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the mean of the rows that no iteration drops."""
        n_rows, draws = len(rows_NP), self.coordinates in range(1, rows_NP.shape[1])
        keep, found, most_N = set(range(n_rows)), 0, torch.zeros(n_rows, dtype=torch.float64)
        for iteration in range(self.iterations if draws else 1):
            drawn = _drawn(rows_NP, self.coordinates, frame, iteration) if draws else None
            score_N = _scores(gram_of(self.of, rows_NP, frame) if drawn is None else gram(drawn))
            f = self.suspects(score_N, (n_rows - 1) // 2)
            keep -= set(_highest(score_N, math.ceil(self.c * f)))
            found, most_N = max(found, f), most_N.maximum(score_N)
        told = Found(scores={"score": most_N}, measures=self.measured(found))
        return selected(rows_NP, weight_N, frame, sorted(keep), reason=_REASON, found=told)

    def least_rows(self) -> int:
        """Return 2 f + 1, or c f + 1 if that is more; of an estimated f, which may be 0, 1."""
        return 1 if self.estimate else max(2 * self.f, math.ceil(self.c * self.f)) + 1

    def check_layout(self, layout: Layout) -> None:
        """Refuse rows without the factors that are compared."""
        check_of(self.of, layout)


@plugin("dnc_as_published")
class DnCAsPublished(OfRows):
    """The mean of the rows that one iteration leaves."""

    outside_theorem: ClassVar[bool] = True

    f: Count = 1
    """Attackers among the rows of a round."""

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the mean of the rows that are left."""
        whole = rows_NP.shape[1] <= _NUMBERS
        score_N = _scores(gram(rows_NP if whole else _drawn(rows_NP, _NUMBERS, frame, 0)))
        drop = _highest(score_N, min(self.f, len(rows_NP) - 1))
        keep = [index for index in range(len(rows_NP)) if index not in drop]
        return selected(rows_NP, weight_N, frame, keep, reason=_REASON, found=Found(scores={"score": score_N}))


def _drawn(rows_NP: Tensor, count: int, frame: Frame, iteration: int) -> Tensor:
    """Return drawn numbers [N, b] of the rows, centred."""
    draws = rng.numpy_random("dnc", frame.seed, frame.round, iteration)
    columns_B = torch.from_numpy(draws.choice(rows_NP.shape[1], count, replace=False))
    drawn_NB = rows_NP[:, columns_B].double()
    return drawn_NB - drawn_NB.mean(0)


def _scores(gram_NN: Tensor) -> Tensor:
    """Return (u_i . v)^2 [N] of the centred rows; v is their top right-singular vector."""
    value_N, vector_NN = torch.linalg.eigh(centred(gram_NN))
    return value_N[-1].clamp(min=0) * vector_NN[:, -1] ** 2


def _highest(score_N: Tensor, count: int) -> list[int]:
    return ranked(-score_N, score_N)[:count]
