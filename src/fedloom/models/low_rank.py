"""The low-rank product of an adapter with its gradients by hand: y + s B A x for one set of factors, K or E of them.

By hand because autograd would keep and add more than is needed, and because only here the gradient of each example is
at hand: with G the gradient of the output, X the input and H = A X^T, example e has dB_e = s (H_e G_e)^T and
dA_e = s (B^T G_e^T) X_e, its own columns of the same two products that a plain step sums over all examples.

Products are written with the thin side first, [R, N]: on a CPU up to seven times faster than [N, R]. Clients with equal
parts share batched products; unequal parts are few, and multiplied one after another.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fedloom.base.errors import ModelError
from fedloom.contracts.language import PackedBatch

__all__ = ["LowRank"]


class LowRank(torch.autograd.Function):
    """y [..., O], x [..., D], A [R, D] or [K, R, D], B [O, R] or [K, O, R], scale a number or [K].

    `batch` says which tokens are whose; without one the K parts are equal. With `per_example` the leading axis of
    factors is one of examples: see the module's docstring. `in_place` adds to y itself.
    """

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        x: Tensor,
        a: Tensor,
        b: Tensor,
        scale: float | Tensor,
        batch: PackedBatch | None,
        per_example: bool,
        in_place: bool,
    ) -> Tensor:
        """Return y + scale (x A^T) B^T, and keep what `backward` needs."""
        examples = batch if per_example else None
        a_KRD, b_KOR = _of_clients(a, examples), _of_clients(b, examples)
        n_clients = max(len(a_KRD), len(b_KOR))
        out = y if in_place else y.clone(memory_format=torch.contiguous_format)
        x_parts, out_parts = (_parts(tensor, n_clients, batch) for tensor in (x, out))
        a_KRD = a_KRD.to(x.dtype).expand(n_clients, -1, -1)
        b_KOR = (b_KOR * (scale[:, None, None] if isinstance(scale, Tensor) else scale)).to(x.dtype)
        b_KOR = b_KOR.expand(n_clients, -1, -1)
        a_parts, b_parts = _like(a_KRD, x_parts), _like(b_KOR, x_parts)
        lows = [torch.bmm(factor, part.mT) for factor, part in zip(a_parts, x_parts, strict=True)]
        for part, low, factor in zip(out_parts, lows, b_parts, strict=True):
            part.baddbmm_(low.mT, factor.mT)
        ctx.save_for_backward(x, a_KRD, b_KOR, *lows)
        ctx.shapes, ctx.scale, ctx.batch, ctx.examples = (a.shape, b.shape), scale, batch, examples
        if in_place:
            ctx.mark_dirty(y)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of y, x, A and B, each where it is wanted."""
        x, a_KRD, b_KOR, *lows = ctx.saved_tensors
        a_shape, b_shape = ctx.shapes
        _, for_x, for_a, for_b, *_ = ctx.needs_input_grad
        x_parts, g_parts = (_parts(t, len(a_KRD), ctx.batch) for t in (x, grads[0]))
        grad_x = grad_a = grad_b = None
        if for_x or for_a:
            thins = [torch.bmm(b.mT, part.mT) for b, part in zip(_like(b_KOR, x_parts), g_parts, strict=True)]
            if for_x:
                grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
                into = _parts(grad_x, len(a_KRD), ctx.batch)
                for part, thin, a in zip(into, thins, _like(a_KRD, x_parts), strict=True):
                    torch.bmm(thin.mT, a, out=part)
            grad_a = _product(thins, x_parts, a_shape, ctx.examples) if for_a else None
        if for_b:
            scale = ctx.scale
            if isinstance(scale, Tensor):
                scale = (scale if ctx.examples is None else scale[ctx.examples.client_E])[:, None, None]
            grad_b = (_product(lows, g_parts, b_shape, ctx.examples) * scale).mT
        return grads[0], grad_x, grad_a, grad_b, None, None, None, None


def _of_clients(factor: Tensor, examples: PackedBatch | None) -> Tensor:
    """Return the factors of the clients, [1, ...] if they share them."""
    if factor.dim() == 2:
        return factor[None]
    if examples is None:
        return factor
    n_clients = len(examples.parts)
    if n_clients == 1:
        return factor[:1]
    clients_K1 = torch.arange(n_clients, device=factor.device)[:, None]
    return factor[(examples.client_E == clients_K1).int().argmax(dim=1)]  # any example of a client has its values


def _parts(tensor: Tensor, n_clients: int, batch: PackedBatch | None) -> tuple[Tensor, ...]:
    """Return [K, N / K, W] as the only part, or [1, N', W] of each client where parts are unequal."""
    flat = tensor.reshape(-1, tensor.shape[-1])
    if n_clients > 1 and batch is not None and not batch.equal_parts:
        return tuple(part[None] for part in flat.split(batch.parts))
    # Without this check the view could give one client the tokens of another.
    if len(flat) % n_clients:
        raise ModelError(f"a batch of {len(flat)} tokens does not divide into {n_clients} stacked clients.")
    return (flat.view(n_clients, -1, flat.shape[-1]),)


def _like(factor_KIJ: Tensor, parts: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return factors divided as the parts are."""
    return (factor_KIJ,) if len(parts) == 1 else factor_KIJ.split(1)


def _product(
    thins: Sequence[Tensor], wides: Sequence[Tensor], shape: torch.Size, examples: PackedBatch | None
) -> Tensor:
    """Return thin wide [..., R, W] in float32, summed over the tokens of what a slot of the factor stands for."""
    if examples is not None and len(shape) == 3:
        found = _by_example(thins, wides, examples)
    else:
        found = torch.cat([torch.bmm(thin, wide) for thin, wide in zip(thins, wides, strict=True)])
        found = found.sum(0) if len(shape) == 2 else found
    return found.to(torch.promote_types(found.dtype, torch.float32))


def _by_example(thins: Sequence[Tensor], wides: Sequence[Tensor], examples: PackedBatch) -> Tensor:
    """Return the product of each example [E, R, W]."""
    thin_MR = torch.cat([thin.mT.flatten(0, 1) for thin in thins])
    wide_MW = torch.cat([wide.flatten(0, 1) for wide in wides]) if len(wides) > 1 else wides[0].flatten(0, 1)
    if not examples.even:
        # What lies behind an example's end must not count; one side suffices, a product with zero is zero.
        thin_MR = thin_MR.index_select(0, examples.place_M).index_fill_(0, examples.behind_B, 0.0)
        wide_MW = wide_MW.index_select(0, examples.place_M)
    found: list[Tensor] = []
    start = 0
    for n_examples, length in examples.groups:
        thin, wide = (side[start : start + n_examples * length] for side in (thin_MR, wide_MW))
        found.append(torch.bmm(thin.view(n_examples, length, -1).mT, wide.view(n_examples, length, -1)))
        start += n_examples * length
    by_group = torch.cat(found) if len(found) > 1 else found[0]
    return by_group if examples.in_order else by_group[examples.back_E]
