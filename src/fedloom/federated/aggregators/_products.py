"""Distances between what clients' low-rank layers compute, which do not depend on how the factors are written.

A layer of client i is B_i A_i; (R A_i, B_i R^-1) is the same layer in another gauge, but another row. So rows are
compared by the change of the products, B_i A_i - B_0 A_0 with the factors at the start of the round, and by all their
numbers that are no factors. Inner products of products need no dense product:

    <B_i A_i, B_j A_j> = tr((B_j^T B_i)(A_i A_j^T)),

the sum over the r x r numbers of B_i^T B_j times those of A_i A_j^T.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from fedloom.base.errors import ConfigError
from fedloom.base.gram import gram
from fedloom.base.tree import Layout
from fedloom.contracts.aggregation import Frame
from fedloom.federated.aggregators._factors import check_factors, factors

__all__ = ["Of", "check_of", "gram_of"]

Of = Literal["row", "product"]
"""What rows are compared by: their numbers, or the products of their factors and all other numbers."""


def check_of(of: Of, layout: Layout) -> None:
    """Refuse rows without both factors of every layer with ConfigError, where products are compared."""
    if of == "product":
        try:
            check_factors(layout)
        except ConfigError as error:
            raise ConfigError(f"aggregator.of: found 'product', for these rows use 'row'. {error}") from error


def gram_of(of: Of, rows_NP: Tensor, frame: Frame) -> Tensor:
    """Return the inner products [N, N] of all rows, or of what their products and other numbers changed by."""
    if of == "row":
        return gram(rows_NP)
    check_of(of, frame.layout)
    total_NN = torch.zeros(len(rows_NP), len(rows_NP), dtype=torch.float64)
    start_1P = torch.zeros_like(rows_NP[:1])  # of a client that changed nothing
    whole = zip(factors(rows_NP, frame), factors(start_1P, frame), strict=True)
    for (_, b_NOR, a_NRD), (_, b_1OR, a_1RD) in whole:
        total_NN += _changes(_products(torch.cat([b_1OR, b_NOR]), torch.cat([a_1RD, a_NRD])))
    total_NN += _others(rows_NP, frame.layout)
    return (total_NN + total_NN.T) / 2  # equal distances are equal to the last bit, whoever is asked first


def _products(b_MOR: Tensor, a_MRD: Tensor) -> Tensor:
    """Return the inner products [M, M] of the products B A."""
    n_rows, _, rank = b_MOR.shape
    left_JO, right_JD = b_MOR.transpose(1, 2).reshape(n_rows * rank, -1), a_MRD.reshape(n_rows * rank, -1)
    both_JJ = (left_JO @ left_JO.T) * (right_JD @ right_JD.T)
    return both_JJ.reshape(n_rows, rank, n_rows, rank).sum((1, 3))


def _changes(gram_MM: Tensor) -> Tensor:
    """Return the inner products of all but the first, each less the first."""
    return gram_MM[1:, 1:] - gram_MM[1:, :1] - gram_MM[:1, 1:] + gram_MM[0, 0]


def _others(rows_NP: Tensor, layout: Layout) -> Tensor:
    """Return the inner products of all numbers that are no factors of the parameters."""
    total_NN = torch.zeros(len(rows_NP), len(rows_NP), dtype=torch.float64)
    for slot, name, shape, place in layout.spans():
        if math.prod(shape) and not (slot == "delta" and name.endswith((".lora_A", ".lora_B"))):
            total_NN += gram(rows_NP[:, place])
    return total_NN
