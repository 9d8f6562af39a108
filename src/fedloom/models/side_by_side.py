"""Several copies of a small network side by side, each with parameters of its own: a pass for all of them.

A layer of K copies is one batched product, a convolution one of K groups (Krizhevsky et al., 2012, section 3.5): what a
step costs beside its arithmetic is paid once. It agrees with each copy alone up to the rounding of sums.

Shapes: K copies, E examples of each, D numbers; pictures are [C, H, W].
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedloom.base.tree import Tree

__all__ = ["Residual", "runs_side_by_side", "side_by_side"]


class Residual(nn.Module):
    """ReLU(F(x) + W x): a block with a way around it."""

    def __init__(self, inner: nn.Module, short: nn.Module) -> None:
        super().__init__()
        self.inner, self.short, self.last = inner, short, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return ReLU(F(x) + W x)."""
        return self.last(self.inner(x) + self.short(x))


_ELEMENTWISE = (nn.ReLU, nn.Identity)
_BY_CHANNEL = (nn.MaxPool2d, nn.AdaptiveAvgPool2d)
_KNOWN = (nn.Sequential, Residual, nn.Flatten, nn.Linear, nn.Conv2d, nn.GroupNorm, *_ELEMENTWISE, *_BY_CHANNEL)


def runs_side_by_side(module: nn.Module) -> bool:
    """Return whether a module is made of the layers that are known here."""
    return all(isinstance(part, _KNOWN) for part in module.modules())


def side_by_side(module: nn.Module, params: Tree, inputs: Tensor) -> Tensor:
    """Return scores [K, E, C] of inputs [K, E, ...] under K sets of parameters [K, ...]; those not given are shared."""
    return _passed(module, params, inputs, "")


def _passed(module: nn.Module, params: Tree, x: Tensor, name: str) -> Tensor:
    if isinstance(module, Residual):
        around = _passed(module.short, params, x, f"{name}short.")
        return (_passed(module.inner, params, x, f"{name}inner.") + around).relu()
    if isinstance(module, nn.Sequential):
        for child, part in module.named_children():
            x = _passed(part, params, x, f"{name}{child}.")
        return x
    if isinstance(module, nn.Flatten):
        return x.flatten(2)
    if isinstance(module, _ELEMENTWISE):
        return module(x)
    if isinstance(module, nn.Linear | nn.Conv2d | nn.GroupNorm):
        own = {
            part: params[f"{name}{part}"] if f"{name}{part}" in params else value.expand(len(x), *value.shape)
            for part, value in module.named_parameters()
        }
        return _layer(module, x, **own)
    return _apart(module(_beside(x)), len(x))


def _layer(module: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what a layer makes of x [K, E, ...] with weights and biases of each copy [K, ...]."""
    if isinstance(module, nn.Conv2d):
        return _convolved(module, x, weight, bias)
    if isinstance(module, nn.GroupNorm):
        own = weight.flatten(), None if bias is None else bias.flatten()
        return _apart(functional.group_norm(_beside(x), len(x) * module.num_groups, *own, module.eps), len(x))
    # The other way round the gradient of the weights would lie across them in memory, and be copied once more.
    return (weight @ x.mT).mT if bias is None else bias[..., None].baddbmm(weight, x.mT).mT


def _convolved(module: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolutions of all copies as one of K groups."""
    found = functional.conv2d(
        _beside(x),
        weight.flatten(0, 1),
        None if bias is None else bias.flatten(),
        module.stride,
        module.padding,
        groups=len(x),
    )
    return _apart(found, len(x))


def _beside(x: Tensor) -> Tensor:
    """Return pictures [K, E, C, H, W] as [E, K C, H, W]: each copy's channels are a group of their own.

    Channels lie side by side in memory, which takes half the time of pictures one after another.
    """
    return x.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)


def _apart(x: Tensor, n_copies: int) -> Tensor:
    """Return [E, K C, H, W] as [K, E, C, H, W], without a copy."""
    return x.unflatten(1, (n_copies, -1)).transpose(0, 1)
