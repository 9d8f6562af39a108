"""Layers whose weights are not learnt, computed faster on a CPU than a layer that could learn.

`freeze` replaces a model's plain linear layers and root-mean-square norms, in place and with the same parameters. What
a layer computes is asked of it, not read off its class: a norm that gives something else on a few numbers, as Gemma's
does, stays as it is.

Norm (Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467, eq. 4): with r = 1 / sqrt(mean(x^2) + eps) and
n = x r, y = w n and dx = r (w g - n mean(w g n)) for a gradient g of y. Autograd through its single steps reads and
writes the states of all tokens about twenty times, this five times.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fedloom.base.products import frozen_linear, packed, packed_linear

__all__ = ["FrozenLinear", "FrozenNorm", "PackedLinear", "freeze", "pack"]


class FrozenLinear(nn.Linear):
    """A linear layer, multiplied by the kernel that is fast on this machine."""

    @classmethod
    def of(cls, layer: nn.Linear) -> "FrozenLinear":
        """Return the layer as such a one."""
        with torch.device("meta"):
            made = cls(layer.in_features, layer.out_features, bias="bias" in dict(layer.named_parameters()))
        made.weight, made.bias = layer.weight, layer.bias
        return made

    def forward(self, input: Tensor) -> Tensor:
        """Return W x + b."""
        return frozen_linear(input, self.weight, self.bias)


class PackedLinear(nn.Module):
    """A linear layer without bias whose weight oneDNN has laid out: for reading alone, there are no gradients."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        """Return W x."""
        return packed_linear(x, self.weight)


class FrozenNorm(nn.Module):
    """The root-mean-square norm of states [..., D] in float32, times a weight [D] in their own type."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x: Tensor) -> Tensor:
        """Return x / sqrt(mean(x^2) + eps) times the weight."""
        return _Norm.apply(x, self.weight, self.eps)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        wide = x.float()
        root = torch.linalg.vecdot(wide, wide)[..., None].div_(x.shape[-1]).add_(eps).rsqrt_()
        normal = (wide * root).to(x.dtype)
        ctx.save_for_backward(normal, root, weight_D)
        return normal * weight_D

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        normal, root, weight_D = ctx.saved_tensors
        grad, wide = (grads[0] * weight_D).float(), normal.float()
        mean = torch.linalg.vecdot(grad, wide)[..., None].div_(-normal.shape[-1])
        return grad.addcmul_(wide, mean).mul_(root).to(normal.dtype), None, None


def freeze(module: nn.Module) -> None:
    """Replace plain linear layers and norms of a model on the CPU; other devices have fast ones."""
    for name, layer in list(module.named_modules()):
        weight = dict(layer.named_parameters(recurse=False)).get("weight")
        if weight is None or weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
            continue
        if type(layer) is nn.Linear:
            module.set_submodule(name, FrozenLinear.of(layer))
        elif (norm := _norm_of(layer, weight)) is not None:
            module.set_submodule(name, norm)


def pack(module: nn.Module) -> None:
    """Let oneDNN lay out the weights of frozen linear layers, where it is fast, in a module that only reads."""
    for name, layer in list(module.named_modules()):
        if not isinstance(layer, FrozenLinear) or "bias" in dict(layer.named_parameters()):
            continue
        if (weight := packed(layer.weight)) is not None:
            module.set_submodule(name, PackedLinear(weight))


def _norm_of(layer: nn.Module, weight: nn.Parameter) -> FrozenNorm | None:
    """Return the norm that a layer is; None for any other layer."""
    numbers = {value for value in vars(layer).values() if isinstance(value, float)}
    if not type(layer).__name__.endswith("RMSNorm") or weight.dim() != 1 or len(numbers) != 1:
        return None
    norm = FrozenNorm(weight, numbers.pop())
    # Small states tell where eps stands, large ones that it counts for nothing else.
    x_ND = torch.linspace(-1, 2, 3 * len(weight)).view(3, -1) * torch.tensor([[1e-3], [1.0], [1e2]])
    x_ND = x_ND.to(weight.dtype)
    try:
        found_ND = layer(x_ND)
    except (RuntimeError, TypeError, ValueError):
        return None
    same = isinstance(found_ND, Tensor) and torch.allclose(
        found_ND, norm(x_ND), rtol=1e-2 if weight.dtype == torch.bfloat16 else 1e-5, atol=1e-6
    )
    return norm if same else None
