"""Less weight for clients whose rows, over all rounds so far, point the same way.

FoolsGold, Fung et al., 2020, The Limitations of Federated Learning in Sybil Settings,
https://arxiv.org/abs/1808.04866, Algorithm 1. With h_i the sum of what client i has sent so far and c_ij the cosine of
h_i and h_j:

    m_i = max_{j != i} c_ij
    c_ij <- c_ij m_i / m_j  where m_i < m_j                        pardoning
    v_i = 1 - max_j c_ij, in [0, 1]; all over their largest; 1 counts as 0.99
    v_i <- ln(v_i / (1 - v_i)) + 1/2, in [0, 1]
    the aggregate is sum_i v_i u_i

It is a sum and not a mean: of n rows unlike each other it is n times theirs, and the server's learning rate should be
1/n of what suits `mean`. Clients that are alike because their data are lose weight as attackers do, and a lone attacker
among them gains it. No theorem stands behind it.

The histories h_i are state of the run, one row for each client that has taken part, named by client: the cosines of
tomorrow need all of their numbers. Rows without names have no history.

Deviations: no weighing of features by importance, which the paper leaves open. No m_i is below 0, so that pardoning
never turns a sign. Where no client is trusted, as where all rows are equal, the aggregate is a row of zeros. Weights
are ignored, as in the paper. `foolsgold_as_published` is what the public code of arXiv 2406.10630 computes: no history,
and the mean of v_i u_i over the rows with v_i > 0.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from fedloom.base.gram import cosines, gram
from fedloom.base.plugin import plugin
from fedloom.base.tree import Tree
from fedloom.contracts.aggregation import SHARE, Aggregate, Frame
from fedloom.federated.aggregators._rows import Found, OfRows, told, total_of

__all__ = ["FoolsGold", "FoolsGoldAsPublished"]

_EQUAL = 1e-6
"""Cosines so near 1 are 1: where all rows are copies, rounding must not say whom to trust."""

_REASON = "its rows point the same way as another client's"


@plugin("foolsgold")
class FoolsGold(OfRows):
    """The sum of rows, each times how unlike the others its client has been so far."""

    anchored: ClassVar[bool] = True
    distrusts_copies: ClassVar[bool] = True

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the sum of trusted rows, and the histories of all clients."""
        new = _histories(rows_NP, frame)
        trust_N = _trust(gram([new.get(client, row_P) for client, row_P in _named(rows_NP, frame)]))
        return _told(total_of(rows_NP, trust_N), frame, trust_N, frame.state | new)


@plugin("foolsgold_as_published")
class FoolsGoldAsPublished(OfRows):
    """The mean of rows, each times how unlike the others of this round it is."""

    outside_theorem: ClassVar[bool] = True
    anchored: ClassVar[bool] = True
    distrusts_copies: ClassVar[bool] = True

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the mean over trusted rows."""
        trust_N = _trust(gram(rows_NP))
        part_N = trust_N / max(1, int((trust_N > 0).sum()))
        return _told(total_of(rows_NP, part_N), frame, trust_N, {})


def _histories(rows_NP: Tensor, frame: Frame) -> Tree:
    """Return what each client of the round has sent so far, this round's row included."""
    return {
        client: frame.state[client] + row_P if client in frame.state else row_P.clone()
        for client, row_P in _named(rows_NP, frame)
        if client
    }


def _named(rows_NP: Tensor, frame: Frame) -> Iterator[tuple[str, Tensor]]:
    """Yield each row with its client's name, "" where it has none."""
    yield from zip(frame.clients or ("",) * len(rows_NP), rows_NP, strict=True)


def _trust(gram_NN: Tensor) -> Tensor:
    """Return v [N] from the inner products of the histories."""
    cosine_NN = cosines(gram_NN).nan_to_num(nan=0.0).fill_diagonal_(0)
    most_N = cosine_NN.amax(1).clamp(min=0)
    pardon_NN = torch.where(most_N[:, None] < most_N[None, :], most_N[:, None] / most_N[None, :], 1.0)
    v_N = (1 - (cosine_NN * pardon_NN).amax(1)).clamp(0, 1)
    v_N = v_N.where(v_N > _EQUAL, 0.0)
    v_N = v_N / v_N.max() if float(v_N.max()) > 0 else v_N
    return (v_N.clamp(max=0.99).logit() + 0.5).clamp(0, 1)


def _told(row_P: Tensor, frame: Frame, trust_N: Tensor, state: Tree) -> Aggregate:
    share_N = trust_N / trust_N.sum().clamp(min=torch.finfo(torch.float64).tiny)
    left_out = {index: _REASON for index, trust in enumerate(trust_N.tolist()) if trust == 0}
    return told(row_P, frame, Found(scores={"trust": trust_N, SHARE: share_N}, left_out=left_out, state=state))
