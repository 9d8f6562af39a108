"""The low-rank product of an adapter with its gradients by hand: y + s B A x for one set of factors, K or E of them.

By hand because autograd would keep and add more than is needed, and because only here the gradient of each example is
at hand: with G the gradient of the output, X the input and H = X A^T, example e has dB_e = s G_e^T H_e and
dA_e = s (G_e B)^T X_e, its own rows of the same two products that a plain step sums over all examples.
"""

from typing import Any

import torch
from torch import Tensor

from fedloom.contracts import Batch
from fedloom.errors import ModelError

__all__ = ["LowRank"]


class LowRank(torch.autograd.Function):
    """y [..., O], x [..., D], A [R, D] or [K, R, D], B [O, R] or [K, O, R], scale a number or [K].

    With a batch the leading axis of factors is one of examples: see the module's docstring.
    """

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float | Tensor, examples: Batch | None
    ) -> Tensor:
        a_KRD, b_KOR = _of_clients(a, examples), _of_clients(b, examples)
        n_clients = max(len(a_KRD), len(b_KOR))
        x_KND, y_KNO = _parts(x, n_clients), _parts(y, n_clients)
        a_KRD = a_KRD.to(x.dtype).expand(n_clients, -1, -1)
        b_KOR = (b_KOR * (scale if isinstance(scale, float) else scale[:, None, None])).to(x.dtype)
        b_KOR = b_KOR.expand(n_clients, -1, -1)
        low_KNR = torch.bmm(x_KND, a_KRD.mT)
        ctx.save_for_backward(x_KND, low_KNR, a_KRD, b_KOR)
        ctx.shapes, ctx.scale, ctx.examples = (x.shape, a.shape, b.shape), scale, examples
        return torch.baddbmm(y_KNO, low_KNR, b_KOR.mT).view(y.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_KND, low_KNR, a_KRD, b_KOR = ctx.saved_tensors
        x_shape, a_shape, b_shape = ctx.shapes
        _, for_x, for_a, for_b, *_ = ctx.needs_input_grad
        g_KNO = _parts(grads[0], len(x_KND))
        grad_x = grad_a = grad_b = None
        if for_x or for_a:
            thin_KNR = torch.bmm(g_KNO, b_KOR)
            grad_x = torch.bmm(thin_KNR, a_KRD).view(x_shape) if for_x else None
            grad_a = _outer(thin_KNR, x_KND, a_shape, ctx.examples) if for_a else None
        if for_b:
            grad_b = _outer(g_KNO, low_KNR, b_shape, ctx.examples)
            scale = ctx.scale
            if not isinstance(scale, float):
                scale = (scale if ctx.examples is None else scale[ctx.examples.client_E])[:, None, None]
            grad_b = grad_b * scale
        return grads[0], grad_x, grad_a, grad_b, None, None


def _of_clients(factor: Tensor, examples: Batch | None) -> Tensor:
    """Return the factors of the clients, [1, ...] if they share them."""
    if factor.dim() == 2:
        return factor[None]
    if examples is None:
        return factor
    client_E = examples.client_E
    first = torch.cat((client_E.new_ones(1, dtype=torch.bool), client_E[1:] != client_E[:-1]))
    return factor[first] if len(examples.parts) > 1 else factor[:1]


def _parts(tensor: Tensor, n_clients: int) -> Tensor:
    flat = tensor.reshape(-1, tensor.shape[-1])
    # Without this check the view could give one client the tokens of another.
    if len(flat) % n_clients:
        raise ModelError(f"a batch of {len(flat)} tokens does not divide into {n_clients} stacked clients.")
    return flat.view(n_clients, -1, flat.shape[-1])


def _outer(left_KNI: Tensor, right_KNJ: Tensor, shape: torch.Size, examples: Batch | None) -> Tensor:
    """Return left^T right in float32, summed over the tokens of what a slot of the factor stands for."""
    if len(shape) == 2:
        return _at_least_float32(left_KNI.flatten(0, 1).mT @ right_KNJ.flatten(0, 1))
    if examples is not None:
        left_KNI, right_KNJ = _by_example(left_KNI, examples), _by_example(right_KNJ, examples)
        if not examples.even:  # one side suffices: a product with zero is zero
            thin = min(left_KNI, right_KNJ, key=lambda side: side.shape[-1])
            thin.view(-1, thin.shape[-1]).index_fill_(0, examples.behind_M, 0.0)
    return _at_least_float32(torch.bmm(left_KNI.mT, right_KNJ))


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _by_example(tokens_KNW: Tensor, examples: Batch) -> Tensor:
    n_examples, length = examples.place_ET.shape
    flat_NW = tokens_KNW.reshape(-1, tokens_KNW.shape[-1])
    if not examples.even:
        flat_NW = flat_NW.index_select(0, examples.place_ET.view(-1))
    return flat_NW.view(n_examples, length, -1)
