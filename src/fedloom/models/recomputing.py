"""Blocks that are computed once more in the backward pass, so that their inputs alone are kept: gradient checkpointing.

Chen et al., 2016, https://arxiv.org/abs/1604.06174, section 4.1, each block a segment, by `torch.utils.checkpoint`. Two
things are gone by then, and kept here: the parameters, which reach a block by `functional_call`, and what the context
said of the pass. Dropout draws again what it drew.

Deviations: none; gradients are those of the plain pass, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from fedloom.contracts.model import ForwardContext

__all__ = ["recomputed"]


def recomputed(block: nn.Module, context: ForwardContext, x: Tensor, *others: Any) -> Tensor:
    """Return block(x, *others), whose inside is computed once more when gradients are taken."""
    own: dict[str, Tensor] = dict(block.named_parameters())
    then, drawn = replace(context), [generator.get_state() for generator in context.generators]
    passes = count()

    def run(x: Tensor) -> Tensor:
        if next(passes) == 0:
            return block(x, *others)
        with context.saying(replace(then, generators=_rewound(then.generators, drawn))):
            return functional_call(block, own, (x, *others), tie_weights=False)

    return checkpoint(run, x, use_reentrant=False, preserve_rng_state=False)


def _rewound(generators: Sequence[torch.Generator], states: Sequence[Tensor]) -> tuple[torch.Generator, ...]:
    """Return generators that stand where these stood."""
    made = tuple(torch.Generator(one.device) for one in generators)
    for generator, state in zip(made, states, strict=True):
        generator.set_state(state)
    return made
