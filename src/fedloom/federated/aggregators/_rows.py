"""What rules on whole rows share: how they are asked, how rows are mixed by shares, and what is told of each row.

Rows are the changes of the parameters, and whatever else clients send to be averaged (a rule's control variates) lies
in the same row: lengths, distances and cosines are those of the whole row.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from fedloom.base.plugin import AtLeast
from fedloom.base.rows import check_matrix
from fedloom.base.tree import Tree
from fedloom.contracts.aggregation import SHARE, Aggregate, Aggregator, Frame
from fedloom.federated.aggregators.mean import mixed

__all__ = ["Found", "OfRows", "selected", "told", "total_of"]


@dataclass(frozen=True, kw_only=True)
class OfRows(Aggregator):
    """A rule on the matrix of all rows: odd rows and too few of them are refused before it is asked."""

    limit_bytes: AtLeast = 1 << 31
    """Largest matrix of rows that is kept in memory; a larger one lies in a temporary file."""

    sorts: ClassVar[bool] = False
    """Whether it sorts all numbers, where it sees by itself whether they are finite (`_columns`)."""

    @abstractmethod
    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the aggregate of rows and weights that have been checked."""

    def aggregate(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the aggregate; ConfigError for fewer rows than `least_rows`, else as `check_matrix`."""
        check_matrix(rows_NP, weight_N, finite=not self.sorts)
        self.check_count(len(rows_NP))
        return self.merged(rows_NP, weight_N, frame)

    def __call__(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Tensor:
        """Return the row [P] of the aggregate."""
        return self.aggregate(rows_NP, weight_N, frame).row_P

    def matrix_bytes(self) -> int:
        """Return `limit_bytes`."""
        return self.limit_bytes


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a rule found out, row by row."""

    scores: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """One number [N] of each row, by name."""
    left_out: Mapping[int, str] = field(default_factory=dict[int, str])
    """Why a row is no part of the aggregate, by its index."""
    measures: Mapping[str, float] = field(default_factory=dict[str, float])
    state: Tree = field(default_factory=dict[str, Tensor])


def total_of(rows_NP: Tensor, share_N: Tensor) -> Tensor:
    """Return the sum of share times row [P], zeros where nobody has a share; rows of share 0 are not read."""
    total = float(share_N.sum())
    if total == 0:
        return torch.zeros_like(rows_NP[0])
    row_P = mixed(rows_NP, share_N)
    return row_P if abs(total - 1) < 1e-12 else row_P.mul_(total)


def told(row_P: Tensor, frame: Frame, found: Found) -> Aggregate:
    """Return an aggregate that tells what was found by the clients' names; of rows without names nothing is told."""
    named = [(index, client) for index, client in enumerate(frame.clients) if client]
    scores = {
        client: {name: float(value_N[index]) for name, value_N in found.scores.items()} for index, client in named
    }
    left_out = {client: found.left_out[index] for index, client in named if index in found.left_out}
    return Aggregate(row_P, found.measures, found.state, scores if found.scores else {}, left_out)


def selected(
    rows_NP: Tensor, weight_N: Tensor, frame: Frame, keep: Sequence[int], *, reason: str, found: Found
) -> Aggregate:
    """Return the weighted mean of the rows in `keep`, their weights divided by their sum.

    All others are left out for that reason. Where none is kept the aggregate is a row of zeros.
    """
    share_N = torch.zeros(len(rows_NP), dtype=torch.float64)
    share_N[[*keep]] = weight_N.double()[[*keep]]
    share_N = share_N / share_N.sum() if keep else share_N
    left_out = {index: reason for index in range(len(rows_NP)) if index not in keep}
    whole = Found(
        scores={**found.scores, SHARE: share_N}, left_out=left_out, measures=found.measures, state=found.state
    )
    return told(total_of(rows_NP, share_N), frame, whole)
