"""The gradient of a step of the clients that train together: of whole models here, of split ones in room `split`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedloom.base.tree import Tree
from fedloom.contracts.federated import Item, Work
from fedloom.federated.kernels import client_gradients

__all__ = ["Slope", "Step", "by_whole_model"]


@dataclass(frozen=True)
class Step:
    """One step of the clients that train together: what their gradients are asked for."""

    work: Work
    clients: tuple[str, ...]
    round: int
    number: int
    """The step in the round, from 0."""
    lr: float
    leaves: Tree
    """The parameters of each client [K, ...], by name."""
    parts: Sequence[Sequence[Sequence[Item]]]
    """The micro-batches of each client."""
    scaling_K: Tensor | None
    """What multiplies each client's adapters, where clients have ranks of their own."""


Slope = Callable[[Step], tuple[Tensor, Tensor] | None]
"""Gives the gradient of each client's step [K, P], and totals and weights of its loss [2, K]; None: it takes none."""


def by_whole_model(step: Step) -> tuple[Tensor, Tensor]:
    """Return the gradient of each client's step [K, P], and totals and weights of its loss [2, K]."""
    work, leaves, parts = step.work, step.leaves, step.parts
    work.model.context.scaling_K = step.scaling_K
    tokens = work.plan.local.normalise == "tokens"
    found = [
        client_gradients(work.model, work.task, leaves, micros, per=1.0 if tokens else None)
        for micros in zip(*parts, strict=True)
    ]
    grad_KP, loss_2K = found[0].sum_KP, torch.stack((found[0].total_K, found[0].weight_K))
    for more in found[1:]:
        grad_KP += more.sum_KP
        loss_2K += torch.stack((more.total_K, more.weight_K))
    # Once, over all micro-batches: no mean of means.
    counts_K = loss_2K[1] if tokens else loss_2K.new_tensor([sum(map(len, micros)) for micros in parts])
    return grad_KP.div_(counts_K[:, None]), loss_2K
