"""Where the training of whole modules starts: weights drawn by name from the run's seed."""

import math

import torch
from torch import nn

from fedloom.base import rng

__all__ = ["start_by_name"]


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
