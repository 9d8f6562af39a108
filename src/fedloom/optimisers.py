"""The client's optimisers, elementwise on a row and in place: AdamW and SGD with momentum.

Both agree with `torch.optim` to float32 rounding (tested). They work on [P] and on stacked [K, P] alike. Their buffers
are allocated once and reset, because a client's optimiser usually starts anew in each round.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedloom.settings import LocalSettings
from fedloom.tree import Tree

__all__ = ["Moments", "advance"]


@dataclass
class Moments:
    """The optimiser's buffers and the number of steps taken."""

    first: Tensor
    second: Tensor
    steps: int = 0
    scratch: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.scratch = torch.empty_like(self.second)

    @classmethod
    def like(cls, row: Tensor, settings: LocalSettings) -> "Moments":
        """Return zero buffers for rows of this shape; an optimiser without moments gets empty ones."""
        wants_first = settings.optimiser == "adamw" or settings.momentum > 0
        none = row.new_zeros(0)
        return cls(
            torch.zeros_like(row) if wants_first else none,
            torch.zeros_like(row) if settings.optimiser == "adamw" else none,
        )

    def load(self, saved: Tree | None) -> None:
        """Take over saved buffers, or start anew."""
        self.steps = int(saved["steps"]) if saved else 0
        for name, buffer in (("first", self.first), ("second", self.second)):
            if saved:
                buffer.copy_(saved[name])
            else:
                buffer.zero_()

    def saved(self) -> Tree:
        """Return copies of the buffers, to be kept until the client's next round."""
        return {"first": self.first.clone(), "second": self.second.clone(), "steps": torch.tensor(self.steps)}


def advance(row: Tensor, grad: Tensor, moments: Moments, settings: LocalSettings, *, lr: float) -> None:
    """Move `row` by one step against `grad`, in place; `grad` may be overwritten."""
    moments.steps += 1
    if settings.weight_decay and settings.optimiser == "adamw":
        row.mul_(1 - lr * settings.weight_decay)
    if settings.optimiser == "adamw":
        _adamw(row, grad, moments, settings, lr=lr)
    else:
        _sgd(row, grad, moments, settings, lr=lr)


def _adamw(row: Tensor, grad: Tensor, moments: Moments, settings: LocalSettings, *, lr: float) -> None:
    """AdamW (Loshchilov & Hutter, 2019, https://arxiv.org/abs/1711.05101, Algorithm 2), bias-corrected."""
    moments.first.lerp_(grad, 1 - settings.beta1)
    moments.second.mul_(settings.beta2).addcmul_(grad, grad, value=1 - settings.beta2)
    correction1 = 1 - settings.beta1**moments.steps
    correction2 = 1 - settings.beta2**moments.steps
    torch.sqrt(moments.second, out=moments.scratch)
    moments.scratch.div_(correction2**0.5).add_(settings.epsilon)
    row.addcdiv_(moments.first, moments.scratch, value=-lr / correction1)


def _sgd(row: Tensor, grad: Tensor, moments: Moments, settings: LocalSettings, *, lr: float) -> None:
    """SGD as torch computes it: decay joins the gradient, then momentum without dampening."""
    if settings.weight_decay:
        grad.add_(row, alpha=settings.weight_decay)
    if settings.momentum:
        grad = moments.first.mul_(settings.momentum).add_(grad)
    row.add_(grad, alpha=-lr)
