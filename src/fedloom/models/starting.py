"""Whole modules: weights drawn by name from the run's seed where training starts, which of them train, all as kept."""

import math
import re
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import nn

from fedloom.base import rng
from fedloom.base.errors import ConfigError, suggest
from fedloom.base.tree import Tree

__all__ = ["kept_of", "selected", "start_by_name", "trainable_of"]


def start_by_name(module: nn.Module, seed: int, kind: str) -> None:
    """Draw the weights of a module's layers from U(-1 / sqrt(fan in), 1 / sqrt(fan in)); norms are 1 and 0.

    A parameter that belongs to no layer with a weight is left as it was built.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            owner = module.get_submodule(name.rpartition(".")[0])
            if isinstance(owner, nn.GroupNorm):
                parameter.fill_(float(name.endswith("weight")))
            elif "weight" in dict(owner.named_parameters(recurse=False)):
                end = 1 / math.sqrt(owner.get_parameter("weight")[0].numel())
                drawn = torch.rand(parameter.shape, generator=rng.generator(seed, kind, name))
                parameter.copy_(end * (2 * drawn - 1))


def selected(names: Sequence[str], train: str | None, hints: Collection[str] = ()) -> list[str]:
    """Return the names in which a pattern is found, all without one; ConfigError where it finds none or is none."""
    try:
        chosen = [name for name in names if train is None or re.search(train, name)]
    except re.error as error:
        raise ConfigError(f"train: '{train}' is no regular expression ({error}).") from error
    if not chosen:
        raise ConfigError(f"train: '{train}' selects no parameter. {suggest(train or '', hints or names)}")
    return chosen


def trainable_of(module: nn.Module, train: str | None) -> Tree:
    """Return copies of the parameters in whose names a pattern is found, of all without one."""
    own = dict(module.named_parameters())
    return {name: own[name].detach().clone() for name in selected(list(own), train)}


def kept_of(module: nn.Module, params: Mapping[str, torch.Tensor]) -> Tree:
    """Return all parameters of a module as files keep them, those in `params` in place of its own."""
    own = module.named_parameters()
    return {name: params.get(name, tensor).detach().cpu().contiguous() for name, tensor in own}
