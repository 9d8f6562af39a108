"""Products of float32 matrices on a CPU, by the kernel that is fast on its make.

torch multiplies float32 matrices with MKL, which takes a slow path on processors of other makers than its own; oneDNN,
which torch brings along, does not. Which one is taken follows from the make, the size and one comparison with float64,
never from a measured time: two processes of one run, or a run that goes on, must not differ. How much it gains is
measured by `python -m benchmarks.products`.

Shapes: N rows, D input width, O output width.
"""

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fedloom.base.rng import generator

__all__ = ["frozen_linear", "is_fast", "linear", "packed", "packed_linear"]

_LEAST = 1 << 20  # multiplications below which starting oneDNN costs more than it gains
_LEAST_PACKED = 1 << 17  # numbers of a weight below which a few rows are multiplied as fast by MKL
_CLOSE = 1e-5  # of the largest number of a product; one rounded to bfloat16 would be off by 4e-3


@cache
def is_fast() -> bool:
    """Return whether oneDNN is taken for float32: on an x86 processor of another make than MKL's, where it is exact."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkl.is_available():
        return False
    return torch.backends.mkldnn.is_available() and not _is_intel() and _is_exact()


def _is_intel() -> bool:
    """Return whether the processor is of MKL's own make; True where that cannot be told."""
    file = Path("/proc/cpuinfo")
    return not file.is_file() or "AuthenticAMD" not in file.read_text(encoding="utf-8", errors="replace")


def _is_exact() -> bool:
    draws = generator("products")
    x_ND, weight_OD = (torch.randn(n, 256, generator=draws) for n in (64, 128))
    try:
        found_NO = _onednn(x_ND, weight_OD, None)
    except (RuntimeError, AttributeError):
        return False
    right_NO = x_ND.double() @ weight_OD.double().T
    return bool((found_NO - right_NO).abs().max() <= _CLOSE * right_NO.abs().max())


def _onednn(x_ND: Tensor, weight_OD: Tensor, bias_O: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x_ND, weight_OD, bias_O, "none", [], "")


def linear(x: Tensor, weight_OD: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return x [..., D] W^T + b [..., O]; on tensors that need gradients see `frozen_linear`."""
    large = x.numel() * len(weight_OD) >= _LEAST and x.device.type == "cpu"
    fast = large and x.dtype == weight_OD.dtype == torch.float32 and is_fast()
    x_ND = x.reshape(-1, x.shape[-1])
    out_NO = _onednn(x_ND, weight_OD, bias_O) if fast else functional.linear(x_ND, weight_OD, bias_O)
    # Where autograd sees a plain view, whoever comes next could not add to it in place.
    return torch.ops.aten._unsafe_view(out_NO, [*x.shape[:-1], len(weight_OD)])


def packed(weight_OD: Tensor) -> Tensor | None:
    """Return the weight as oneDNN lays it out, for `packed_linear`; None where that is not taken or gains nothing."""
    if weight_OD.device.type != "cpu" or weight_OD.numel() < _LEAST_PACKED:
        return None
    fast = is_fast() if weight_OD.dtype == torch.float32 else _takes_bfloat16() and weight_OD.dtype == torch.bfloat16
    return torch.ops.mkldnn._reorder_linear_weight(weight_OD.detach(), None) if fast else None


@cache
def _takes_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def packed_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return x [..., D] W^T [..., O] of a weight that is `packed`; up to twice as fast for a few rows."""
    out_NO = _onednn(x.reshape(-1, x.shape[-1]), weight, None)
    return out_NO.view(*x.shape[:-1], -1)


def frozen_linear(x: Tensor, weight_OD: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return `linear`, differentiable by x alone: the weight is not learnt."""
    wants_grad = torch.is_grad_enabled() and x.requires_grad
    return (_Frozen.apply if wants_grad else linear)(x, weight_OD, bias_O)


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OD: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight_OD)
        return linear(x, weight_OD, bias_O)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (weight_OD,) = ctx.saved_tensors
        return linear(grads[0], weight_OD.T), None, None
