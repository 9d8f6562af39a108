"""The client's optimisers, elementwise on the rows [K, P] of K clients and in place: AdamW and SGD with momentum.

Both agree with `torch.optim` to float32 rounding (tested). Their buffers are allocated once and reset, because a
client's optimiser usually starts anew in each round.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedloom.base.tree import Tree
from fedloom.contracts.local_settings import LocalSettings

__all__ = ["Moments", "advance"]


@dataclass
class Moments:
    """The optimiser's buffers for K clients and the number of steps that each has taken."""

    first: Tensor
    second: Tensor
    steps_K1: Tensor
    scratch: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.scratch = torch.empty_like(self.second)

    @classmethod
    def like(cls, rows_KP: Tensor, settings: LocalSettings) -> "Moments":
        """Return zero buffers for rows of this shape; an optimiser without moments gets empty ones."""
        wants_first = settings.optimiser == "adamw" or settings.momentum > 0
        none = rows_KP.new_zeros(len(rows_KP), 0)
        return cls(
            torch.zeros_like(rows_KP) if wants_first else none,
            torch.zeros_like(rows_KP) if settings.optimiser == "adamw" else none,
            rows_KP.new_zeros(len(rows_KP), 1, dtype=torch.float64),
        )

    def load(self, place: int, saved: Tree | None) -> None:
        """Take over the saved buffers of the client in that place, or start anew."""
        for name, buffer in (("first", self.first), ("second", self.second), ("steps", self.steps_K1)):
            if saved:
                buffer[place].copy_(saved[name])
            else:
                buffer[place].zero_()

    def saved(self, place: int) -> Tree:
        """Return copies of one client's buffers, to be kept until its next round."""
        buffers = {"first": self.first, "second": self.second, "steps": self.steps_K1}
        return {name: buffer[place].clone() for name, buffer in buffers.items()}


def advance(rows: Tensor, grads: Tensor, moments: Moments, settings: LocalSettings, *, lr: float) -> None:
    """Move the first rows [K', P] by one step against `grads`, in place; `grads` may be overwritten.

    Buffers of clients behind the first K' are not touched.
    """
    n_clients = len(rows)
    moments.steps_K1[:n_clients] += 1
    if settings.weight_decay and settings.optimiser == "adamw":
        rows.mul_(1 - lr * settings.weight_decay)
    if settings.optimiser == "adamw":
        _adamw(rows, grads, moments, settings, lr=lr)
    else:
        _sgd(rows, grads, moments, settings, lr=lr)


def _adamw(rows: Tensor, grads: Tensor, moments: Moments, settings: LocalSettings, *, lr: float) -> None:
    """AdamW (Loshchilov & Hutter, 2019, https://arxiv.org/abs/1711.05101, Algorithm 2), bias-corrected."""
    first, second, scratch, steps_K1 = (
        buffer[: len(rows)] for buffer in (moments.first, moments.second, moments.scratch, moments.steps_K1)
    )
    first.lerp_(grads, 1 - settings.beta1)
    second.mul_(settings.beta2).addcmul_(grads, grads, value=1 - settings.beta2)
    # Clients may have taken different numbers of steps, hence corrections of their own.
    correction1_K1 = (1 - settings.beta1**steps_K1).to(rows.dtype)
    correction2_K1 = (1 - settings.beta2**steps_K1).sqrt().to(rows.dtype)
    torch.sqrt(second, out=scratch)
    scratch.div_(correction2_K1).add_(settings.epsilon).mul_(correction1_K1)
    rows.addcdiv_(first, scratch, value=-lr)


def _sgd(rows: Tensor, grads: Tensor, moments: Moments, settings: LocalSettings, *, lr: float) -> None:
    """SGD as torch computes it: decay joins the gradient, then momentum without dampening."""
    if settings.weight_decay:
        grads.add_(rows, alpha=settings.weight_decay)
    if settings.momentum:
        grads = moments.first[: len(rows)].mul_(settings.momentum).add_(grads)
    rows.add_(grads, alpha=-lr)
