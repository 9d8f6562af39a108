"""Parts of a model: stretches of its blocks as language models of their own, over the same weights.

A part is the whole model with what is not its own left empty: blocks that hand states on as they are, tables and heads
that hold nothing. So every architecture computes by its own code, names of parameters stay those of the model, and
nothing of the model is changed: a part is a second tree of modules around the same tensors.

Shapes: N tokens of a packed row, D width of a hidden state.
"""

import copy
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fedloom.base.errors import ModelError
from fedloom.base.tree import Tree
from fedloom.contracts.language import LanguageModel, PackedBatch
from fedloom.contracts.model import ForwardContext
from fedloom.split.cut import anatomy_of

__all__ = ["Part", "part_of", "states_dtype"]


class _Through(nn.Module):
    """A block of another part: states pass as they are."""

    def forward(self, states: Tensor, *_: Any, **__: Any) -> Tensor:
        """Return the states."""
        return states


class _NoPositions(nn.Module):
    """A table of positions where they were added before."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, positions_BT: Tensor) -> Tensor:
        """Return zeros [B, T, 1]."""
        return torch.zeros(*positions_BT.shape, 1, dtype=self.dtype, device=positions_BT.device)


class _Elsewhere(nn.Module):
    """A table or a head that another part has."""

    def forward(self, *_: Any, **__: Any) -> Tensor:
        """Refuse to be asked."""
        raise ModelError("split: this part of the model has no embedding or head; another part has it.")


@dataclass(frozen=True, kw_only=True)
class Part(LanguageModel):
    """A stretch of a model's blocks, with what lies before the first and behind the last where it has these."""

    blocks: range
    names: dict[str, str] = field(default_factory=dict[str, str])
    """The names of its trained parameters in the whole model, by those in the part; a tied one may have another."""
    given: Tensor | None = None
    """The states [N, D] that enter; None where tokens do."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of states: that of frozen weights, as adapters are float32 whatever these are."""
        return states_dtype(self.module, self.names)

    def entering(self, batch: PackedBatch, start: int, length: int) -> dict[str, Tensor]:
        """Return the given states in place of tokens."""
        if self.given is None:
            return LanguageModel.entering(self, batch, start, length)
        return {"inputs_embeds": self.given[None, start : start + length]}

    def of(self, params: Tree) -> Tree:
        """Return what the part is given of the whole model's parameters, by its own names."""
        return {own: params[name] for own, name in self.names.items()}

    def last_logits(self, own: Tree, inputs: dict[str, Any], n_tokens: int) -> Tensor:
        """Return the logits [V] behind the last of so many tokens that a pass is given; the output part has them."""
        return self._logits(own, inputs, torch.tensor([n_tokens - 1], device=self.device))[0]

    def passed(self, params: Tree, batch: PackedBatch) -> Tensor:
        """Return the states [N, D] behind the last block; what stands where there is padding says nothing."""
        found = [self.states(own, inputs)[0] for own, inputs, *_ in self._passes(self.of(params), batch)]
        if len(found) == 1:
            return found[0]
        states_UD = torch.cat(found)  # sequence by sequence
        place_U = torch.cat([torch.arange(start, start + n) for start, n in batch.lines]).to(states_UD.device)
        return states_UD.new_zeros(batch.tokens_N.numel(), states_UD.shape[1]).index_copy(0, place_U, states_UD)


def states_dtype(module: nn.Module, trained: Collection[str]) -> torch.dtype:
    """Return the type of a module's states, of which some parameters are trained, and some may not be here."""
    frozen = (one for name, one in module.named_parameters() if name not in trained and not one.is_meta)
    return next(frozen, next(module.parameters())).dtype


def part_of(model: LanguageModel, blocks: range) -> Part:
    """Return the blocks of a model as a part: from the embedding on where they begin with 0, to the loss at the end.

    Raises ModelError for an architecture that does not come apart.
    """
    anatomy, context = anatomy_of(model.module), ForwardContext()
    context.recompute, context.n_blocks = model.context.recompute, len(blocks)
    module = _same_weights(model, context)
    body, first, last = anatomy.body, blocks.start == 0, blocks.stop == anatomy.n_blocks
    for block in set(range(anatomy.n_blocks)) - set(blocks):
        module.set_submodule(f"{body}.{anatomy.blocks}.{block}", _Through())
    for number, table in enumerate(() if first else anatomy.tables):
        dtype = module.get_parameter(f"{body}.{table}.weight").dtype
        module.set_submodule(f"{body}.{table}", _NoPositions(dtype) if number else _Elsewhere())
    if not last:
        module.set_submodule(f"{body}.{anatomy.norm}", nn.Identity())
        module.set_submodule(anatomy.head, _Elsewhere())
    if missing := [name for name, one in module.named_parameters() if one.is_meta]:
        raise ModelError(
            f"split: blocks {blocks.start} to {blocks.stop - 1} need '{missing[0]}', which the parts of the model here "
            "do not have; partition it at the run's cut, and give each side its own."
        )
    names = _names(model, module)
    own: dict[str, Any] = {
        "module": module,
        "context": context,
        "trainable": {name: model.trainable[name] for name in names.values()},
        "head": module.get_submodule(anatomy.head) if last and model.head is not None else None,
    }
    return Part(**vars(model) | own, blocks=blocks, names=names)


def _same_weights(model: LanguageModel, context: ForwardContext) -> nn.Module:
    """Return a second tree of modules around the same tensors, whose layers read a context of their own."""
    module = model.module
    tensors = (*module.parameters(), *module.buffers())
    known: dict[int, Any] = {id(one): one for one in tensors} | {id(model.context): context}
    return copy.deepcopy(module, known)


def _names(model: LanguageModel, part: nn.Module) -> dict[str, str]:
    known = {id(parameter): name for name, parameter in model.module.named_parameters()}
    found = {own: known[id(parameter)] for own, parameter in part.named_parameters()}
    return {own: name for own, name in found.items() if name in model.trainable}
