"""Mean products of low-rank factors, without a dense product.

Clients k with weights w_k, which sum to 1, hold factors B_k [O, R] and A_k [R, D] of each layer: what they share at the
start of the round plus the change in their row. Averaging the factors is not averaging what the layers compute. The
mean product is M = sum_k w_k B_k A_k = L S, with w_k B_k side by side in L [O, N R] and the A_k one below another in
S [N R, D]. With L = Q_L R_L and S^T = Q_S R_S,

    M = Q_L (R_L R_S^T) Q_S^T,

so all that is to be known of M, its norms and its singular values, lies in a core of at most N R numbers a side. The
product of the mean factors lies in the same spaces: with E the N unit matrices [R, R] one below another and W the same,
times w_k, it is L E W^T S.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedloom.base.errors import ConfigError, ModelError
from fedloom.base.rows import check_matrix
from fedloom.base.tree import Layout
from fedloom.contracts.aggregation import Aggregate, Aggregator, Frame
from fedloom.federated.aggregators.mean import mean_of

__all__ = ["Core", "OfProducts", "Truncated", "check_factors", "cores", "factors", "gap", "refactorised", "stacked"]

_SLOT, _A, _B = "delta", ".lora_A", ".lora_B"


@dataclass(frozen=True)
class Core:
    """The mean product of one layer, Q_L (R_L R_S^T) Q_S^T, in float64; L has `n_rows` blocks of R columns."""

    layer: str
    left_OM: Tensor
    left_MJ: Tensor
    right_DI: Tensor
    right_IJ: Tensor
    weight_N: Tensor

    @property
    def core_MI(self) -> Tensor:
        """R_L R_S^T."""
        return self.left_MJ @ self.right_IJ.T

    @property
    def gap_MI(self) -> Tensor:
        """The same core of mean(B) mean(A) - mean(B A)."""
        n_rows = len(self.weight_N)
        mean_MR = self.left_MJ.unflatten(1, (n_rows, -1)).sum(1)
        mean_IR = torch.einsum("inr,n->ir", self.right_IJ.unflatten(1, (n_rows, -1)), self.weight_N)
        return mean_MR @ mean_IR.T - self.core_MI


@dataclass(frozen=True)
class Truncated:
    """The best factors of rank R of a layer's mean product, the rank axis in falling order of singular values."""

    layer: str
    a_RD: Tensor
    b_OR: Tensor
    singular_M: Tensor
    """All singular values of the mean product, falling."""

    @property
    def lost(self) -> float:
        """Frobenius norm of what rank R leaves out."""
        return float(self.singular_M[len(self.a_RD) :].norm())

    def rank_needed(self, tolerance: float) -> int:
        """Return the smallest rank that leaves out no more than a share `tolerance` of the Frobenius norm."""
        tail_M = self.singular_M.square().flip(0).cumsum(0).flip(0).sqrt()
        return int((tail_M > tolerance * self.singular_M.norm()).sum())


def check_factors(layout: Layout) -> list[str]:
    """Return the layers of a row that hold A and B; a row of changes without any whole pair is refused.

    Rows without the slot `delta` have no layers. Raises ConfigError for a factor without its partner, and where there
    are none at all.
    """
    names = [name for slot, name, _ in layout.entries if slot == _SLOT]
    ends = {end: {name.removesuffix(end) for name in names if name.endswith(end)} for end in (_A, _B)}
    lone = sorted(ends[_A] ^ ends[_B])
    if lone:
        found, missing = (_A, _B) if lone[0] in ends[_A] else (_B, _A)
        raise ConfigError(
            f"aggregator: the rows hold '{lone[0]}{found}' without '{lone[0]}{missing}', products need both: use "
            "aggregator.name = 'mean', which is exact where one factor is frozen, or train and share both."
        )
    if names and not ends[_A]:
        raise ConfigError(
            f"aggregator: none of {len(names)} trained tensors ends in '{_A}' or '{_B}': use aggregator.name = 'mean'."
        )
    return [name.removesuffix(_A) for name in names if name.endswith(_A)]


def factors(rows_NP: Tensor, frame: Frame) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (layer, B [N, O, R], A [N, R, D]) in float64: what the clients hold, not what they changed."""
    layers = check_factors(frame.layout)
    if layers:
        anchor, delta = frame.anchor, frame.layout.slots(rows_NP)[_SLOT]
        for layer in layers:
            b_NOR, a_NRD = (delta[layer + end].double() + anchor[layer + end].double() for end in (_B, _A))
            yield layer, b_NOR, a_NRD


def stacked(rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (layer, L [O, N R], S [N R, D]) in float64: L S is the layer's mean product, exactly."""
    weight_N11 = weight_N.double()[:, None, None]
    for layer, b_NOR, a_NRD in factors(rows_NP, frame):
        yield layer, (weight_N11 * b_NOR).transpose(0, 1).flatten(1), a_NRD.flatten(0, 1)


def cores(rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Iterator[Core]:
    """Yield the core of each layer's mean product."""
    for layer, left_OJ, right_JD in stacked(rows_NP, weight_N, frame):
        left_OM, left_MJ = torch.linalg.qr(left_OJ)
        right_DI, right_IJ = torch.linalg.qr(right_JD.T)
        yield Core(layer, left_OM, left_MJ, right_DI, right_IJ, weight_N.double())


def gap(rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> float:
    """Return ||mean(B) mean(A) - mean(B A)|| / ||mean(B A)||, Frobenius, over all layers; 0 where nothing was learnt.

    This is what averaging factors loses. Weights sum to 1.
    """
    check_matrix(rows_NP, weight_N)
    pairs = [(core.gap_MI, core.core_MI) for core in cores(rows_NP, weight_N, frame)]
    return _share([float(gap.norm()) for gap, _ in pairs], [float(core.norm()) for _, core in pairs])


def _share(parts: list[float], wholes: list[float]) -> float:
    whole = math.hypot(*wholes)
    return math.hypot(*parts) / whole if whole else 0.0


def refactorised(rows_NP: Tensor, weight_N: Tensor, frame: Frame, *, tolerance: float) -> Aggregate:
    """Return the row [P] whose factors have the best product of their rank, and what that cost.

    All other numbers are averaged. The costs are shares of the Frobenius norm of all layers' mean products:
    `discarded` by the rank, and the `gap` that averaging the factors would have left. Raises ModelError for a layer
    that loses more than a share `tolerance`.
    """
    result_P = mean_of(rows_NP, weight_N)
    layers, lost, gaps, sizes = frame.layout.slots(result_P).get(_SLOT, {}), list[float](), list[float](), list[float]()
    anchor = frame.anchor if layers else {}
    for core in cores(rows_NP, weight_N, frame):
        best = _truncated(core, len(layers[core.layer + _A]))
        _check_lost(best, tolerance, n_rows=len(rows_NP))
        layers[core.layer + _A].copy_(best.a_RD - anchor[core.layer + _A].double())
        layers[core.layer + _B].copy_(best.b_OR - anchor[core.layer + _B].double())
        lost.append(best.lost)
        gaps.append(float(core.gap_MI.norm()))
        sizes.append(float(best.singular_M.norm()))
    return Aggregate(result_P, {"discarded": _share(lost, sizes), "gap": _share(gaps, sizes)})


def _truncated(core: Core, rank: int) -> Truncated:
    """Return B = U S and A = V^T of the first `rank` singular values, filled up with zeros where there are fewer.

    Signs are chosen so that the largest number of each row of A is positive: the same on every machine.
    """
    u_MK, singular_K, v_KI = torch.linalg.svd(core.core_MI, full_matrices=False)
    a_KD = v_KI[:rank] @ core.right_DI.T
    b_OK = core.left_OM @ (u_MK[:, :rank] * singular_K[:rank])
    sign_K = torch.where(a_KD.gather(1, a_KD.abs().argmax(1, keepdim=True)) < 0, -1.0, 1.0).double()
    a_RD = a_KD.new_zeros(rank, a_KD.shape[1])
    b_OR = b_OK.new_zeros(len(b_OK), rank)
    a_RD[: len(a_KD)], b_OR[:, : len(a_KD)] = sign_K * a_KD, b_OK * sign_K.T
    return Truncated(core.layer, a_RD, b_OR, singular_K)


def _check_lost(best: Truncated, tolerance: float, *, n_rows: int) -> None:
    rank, needed = len(best.a_RD), best.rank_needed(tolerance)
    if needed > rank:
        raise ModelError(
            f"aggregator: the mean product of {n_rows} clients in '{best.layer}' has rank {needed}, the adapter has "
            f"rank {rank}: raise model.lora_rank to {needed}, give the clients ranks that add up to {rank}, or accept "
            "the loss with aggregator.name = 'lora_svd'."
        )


class OfProducts(Aggregator):
    """What aggregators of products share: rows hold both factors of every layer, and are gathered as one matrix."""

    changes_basis: ClassVar[bool] = True
    limit_bytes: int

    def __call__(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Tensor:
        """Return the row [P] of the adapter; ConfigError if rows do not hold both factors."""
        return self.aggregate(rows_NP, weight_N, frame).row_P

    def check_layout(self, layout: Layout) -> None:
        """Refuse rows that do not hold both factors of every layer."""
        check_factors(layout)

    def matrix_bytes(self) -> int:
        """Return `limit_bytes`."""
        return self.limit_bytes
