"""The mean of products of low-rank factors without any loss, or not at all.

FLoRA's stacking-based aggregation (Wang et al., 2024, https://arxiv.org/abs/2409.05976): the clients' factors stacked,
w_k B_k side by side and A_k one below another, have the mean product sum_k w_k B_k A_k exactly.

Deviations: FLoRA adds that product to the frozen base after every round and starts with new adapters. Here the base
never changes, and the adapter has one rank for the whole run; so the stack of rank N R is written in that rank, without
loss wherever its numerical rank fits, and refused with the rank that it needs where it does not. It fits if the ranks
of a round's clients add up to no more than the adapter's, or if the layer is no wider. The stack itself is
`_factors.stacked`. Order and scale of the factors are those of `lora_svd`, and so is what is said there of optimisers.
"""

from typing import Annotated

from torch import Tensor

from fedloom.base.plugin import AtLeast, Range, plugin
from fedloom.contracts.aggregation import Aggregate, Frame
from fedloom.federated.aggregators._factors import OfProducts, refactorised

__all__ = ["LoraStack"]

Small = Annotated[float, Range(0, 1e-2)]


@plugin("lora_stack")
class LoraStack(OfProducts):
    """The adapter that has the mean product; refuses a round whose product needs a larger rank."""

    tolerance: Small = 1e-6
    """Share of a layer's Frobenius norm below which singular values are taken for rounding."""
    limit_bytes: AtLeast = 1 << 31
    """Largest matrix of rows that is kept in memory; a larger one lies in a temporary file."""

    def aggregate(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the row [P] whose adapter has the mean product, and what `refactorised` measures.

        Raises ModelError, naming the rank needed, if there is none.
        """
        return refactorised(rows_NP, weight_N, frame, tolerance=self.tolerance)
