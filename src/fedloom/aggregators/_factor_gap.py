"""How far averaging the factors of low-rank adapters is from averaging their products.

Clients k with weights w_k, which sum to 1, hold factors A_k [R, D] and B_k [O, R] of each layer. The mean of rows
averages the factors; what the clients learnt, on average, is the mean product. The difference is a covariance,

    C = sum_k w_k B_k A_k - (sum_k w_k B_k) (sum_k w_k A_k) = sum_k w_k (B_k - B) (A_k - A),

zero if all A_k or all B_k are equal, and the same whatever is taken off all A_k or all B_k alike: here the first
client's, so that equal factors give zero exactly. Written as L S, with w_k (B_k - B) side by side in L [O, K R] and the
A_k one below another in S [K R, D], its norm needs no O x D matrix: ||L S||^2 = <L^T L, S S^T>.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fedloom.errors import DataError, ModelError
from fedloom.tree import Tree

__all__ = ["factor_gap"]

_A, _B = ".lora_A", ".lora_B"


def factor_gap(adapters: Sequence[Tree], weights: Sequence[float]) -> float:
    """Return ||C|| / ||sum_k w_k B_k A_k|| (Frobenius, over all layers together); 0 if no product has a number but 0.

    `adapters` holds each client's parameters, not their changes, as `X.lora_A` and `X.lora_B`; weights are positive
    and need not sum to 1. Raises DataError for wrong weights, ModelError for trees without pairs of factors.
    """
    if not adapters or len(weights) != len(adapters) or not all(0 < weight < math.inf for weight in weights):
        raise DataError(f"{len(adapters)} adapters, weights {list(weights)}: give each of one or more a weight > 0.")
    layers = [name.removesuffix(_A) for name in adapters[0] if name.endswith(_A)]
    if {f"{layer}{end}" for layer in layers for end in (_A, _B)} != set(adapters[0]) or not layers:
        raise ModelError(f"{len(adapters[0])} tensors are no pairs of lora_A and lora_B; give whole adapters.")
    gap = size = 0.0
    weight_K = torch.tensor(weights, dtype=torch.float64) / math.fsum(weights)
    for layer in layers:
        a_KRD = torch.stack([adapter[layer + _A] for adapter in adapters]).double()
        b_KOR = torch.stack([adapter[layer + _B] for adapter in adapters]).double()
        w_K = weight_K.to(a_KRD.device)[:, None, None]
        size += _squared_norm(w_K * b_KOR, a_KRD)
        a_KRD, b_KOR = a_KRD - a_KRD[0], b_KOR - b_KOR[0]
        gap += _squared_norm(w_K * (b_KOR - (w_K * b_KOR).sum(0)), a_KRD)
    return math.sqrt(gap / size) if size else 0.0


def _squared_norm(b_KOR: Tensor, a_KRD: Tensor) -> float:
    """Return the squared Frobenius norm of sum_k b_k a_k by the Gram matrices of the factors."""
    left, right = b_KOR.transpose(0, 1).flatten(1), a_KRD.flatten(0, 1)
    return max(0.0, float(((left.T @ left) * (right @ right.T)).sum()))
