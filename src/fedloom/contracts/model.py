"""A built model and what passes through it, whatever the examples are: batches, shards, predictions.

Shape letters as in `contracts`: K stacked clients, X examples, E slots of a batch (an example has one or several).
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fedloom.base.tree import Tree

__all__ = ["Batch", "ForwardContext", "Item", "Model", "Prediction", "Shard", "sums_by"]

Item = Any
"""What a task makes of one example, once for the whole run; nobody else looks inside."""


@dataclass(frozen=True)
class Shard:
    """A client's training data, encoded once for the whole run."""

    items: Sequence[Item]
    quality: float = 1.0
    """By what the items count beside their number under `weighting = "quality"`."""
    generated: frozenset[int] = frozenset()
    """The places of items that were generated; the others are the client's own."""


def sums_by(values: Tensor, index_S: Tensor, n_sums: int) -> Tensor:
    """Return the sums [..., n_sums] of values [..., S] that have the same index, with the same bits each time.

    Scattered additions of a GPU come in any order; there each sum is one over all values, the others' left out.
    """
    if values.device.type == "cuda":
        return _sums_of_chosen(values, index_S, n_sums)
    return values.new_zeros(*values.shape[:-1], n_sums).index_add(-1, index_S, values)


def _sums_of_chosen(values: Tensor, index_S: Tensor, n_sums: int) -> Tensor:
    mine_GS = index_S == torch.arange(n_sums, device=index_S.device)[:, None]
    return values[..., None, :].where(mine_GS, 0.0).sum(-1)  # a product with zeros would let NaN through


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Examples of K clients that pass the model together. Every task has a class of its own below this one.

    Its tensors are fields, so that batches of one shape may be stacked field by field under `torch.func.vmap`.
    """

    client_E: Tensor  # int64: the client, from 0, of each slot that has gradients of its own
    """An example is a slot, or several neighbouring ones, as a preference is two sequences."""

    @property
    def owner_X(self) -> Tensor:
        """The client in which each of the X examples lies."""
        return self.client_E

    @property
    def first_X(self) -> Tensor:
        """The first slot of each example."""
        return torch.arange(len(self.client_E), device=self.client_E.device)

    def by_example(self, values: Tensor) -> Tensor:
        """Return sums [X, ...] over the slots of each example, of values [E, ...] by slot."""
        return values


@dataclass
class ForwardContext:
    """What differs from one forward pass to the next: the one thing of a model that changes.

    The low-rank layers read it; at rest they are functions of their inputs alone.
    """

    batch: Batch | None = None
    """The packed batch that is passing; None in generation."""
    generators: tuple[torch.Generator, ...] = ()
    """Where dropout draws from, one for each stacked client; empty while it must be off."""
    seeds: tuple[tuple[str | int, ...], ...] = ()
    """By what names each stacked client's dropout is drawn, by each layer for itself, in place of what runs on from one
    layer to the next: a layer then draws the same whoever computes the others, and whether it is the first time."""
    per_example: bool = False
    """Whether the factors carry one slot per sequence, which all hold their client's values."""
    scaling_K: Tensor | None = None
    """Each stacked client's alpha / r over the layer's own, where clients have ranks of their own."""
    n_blocks: int = 0
    """Blocks that can be computed once more for their gradients, so that their inputs alone are kept; 0 where none."""
    recompute: bool = False
    """Whether they are."""
    side_by_side: bool = True
    """Whether whole models may still be tried under `torch.func.vmap`; False once that has failed."""

    @contextmanager
    def alone(self, client: int) -> Generator[None]:
        """Be the context of one sequence of a client, whose factors carry no leading axis."""
        own = slice(client, client + 1)
        scaling_K = None if self.scaling_K is None else self.scaling_K[own]
        with self.saying(ForwardContext(generators=self.generators[own], seeds=self.seeds[own], scaling_K=scaling_K)):
            yield

    @contextmanager
    def saying(self, other: "ForwardContext") -> Generator[None]:
        """Say of a pass what another context says."""
        kept = replace(self)
        self._say(other)
        try:
            yield
        finally:
            self._say(kept)

    def _say(self, other: "ForwardContext") -> None:
        self.batch, self.generators, self.seeds = other.batch, other.generators, other.seeds
        self.per_example, self.scaling_K = other.per_example, other.scaling_K


@dataclass(frozen=True, kw_only=True)
class Model:
    """A built model: its module is never wrapped and never changed; parameters reach it through `functional_call`."""

    module: nn.Module
    trainable: Tree
    """The tensors that training changes, by their names in `module`, at their initial values."""
    context: ForwardContext
    base_id: str
    """Name and SHA-256 of the base weights, for manifests."""
    stackable: bool
    """Whether all trained tensors may carry a leading client axis."""
    examples_stack: bool = True
    """Whether that axis may be one of examples, so that each has a gradient of its own; else `torch.func.vmap` does."""
    flops: float = 0.0
    """Floating-point operations forwards per unit of a task's `size`; 0: as a language model's, not told."""
    notes: tuple[str, ...] = ()
    """What its owner should know of how it was built: a line each."""
    dropout: float = 0.0
    """Share of inputs that training drops."""
    whole: bool = True
    """Whether all of its weights are here; else it passes in parts alone, as split training has it."""

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(one.device for one in self.module.parameters() if not one.is_meta)

    def of_one(self, params: Tree, place: int) -> Tree:
        """Return the parameters at one place of their leading axis; those without such an axis as they are."""
        dims = {name: self.module.get_parameter(name).dim() for name in params}
        return {name: tensor[place] if tensor.dim() > dims[name] else tensor for name, tensor in params.items()}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model wrote for one example."""

    text: str
    n_tokens: int
