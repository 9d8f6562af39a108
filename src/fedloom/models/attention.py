"""Attention over a packed batch: each example attends to itself alone, through PyTorch's fused kernel.

The linear layers of a model see one row of tokens without padding between them. Here queries, keys and values are
gathered into groups of examples of like length, an example a line; as padding lies behind, the causal kernel needs no
mask, and whatever stands there reaches no real token. It goes to `transformers` under the name `packed`. Without a
packed batch (generation) it is `transformers`' own `sdpa`.

The result is that of a block-diagonal mask over the whole row, at the cost of an example's length, not the row's.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedloom.base.errors import ModelError
from fedloom.contracts.language import PackedBatch

__all__ = ["NAME", "packed_attention", "register"]

NAME = "packed"

_SHORT = 512  # tokens of a row; at twice that the fused kernel is ahead again, and [T, T] is large
_CACHED = 2**21  # numbers of [T, T] worked off together: 4 MB in bfloat16


def register() -> None:
    """Make the attention known to `transformers`; doing it twice changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attended(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        packed: PackedBatch | None = None,
        **options: Any,  # transformers hands every attention function all its options
    ) -> tuple[Tensor, None]:
        if packed is None:
            return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        if options.get("softcap") is not None or options.get("s_aux") is not None:
            raise ModelError(
                f"{type(module).__name__}: its attention is not plain softmax (soft cap or sinks), which packed "
                "batches do not know."
            )
        chosen = {name: options.get(name) for name in ("scaling", "sliding_window")}
        return packed_attention(query, key, value, packed, **chosen), None

    AttentionInterface.register(NAME, attended)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed: PackedBatch,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
) -> Tensor:
    """Return [1, N, H, d] from queries [1, H, N, d], keys and values of as many or fewer heads."""
    wide = [_side_by_side(part, packed) for part in (query, key, value)]
    outs: list[Tensor] = []
    start = 0
    for n_examples, length in packed.groups:
        parts = [part[start : start + n_examples * length] for part in wide]
        query, key, value = (part.view(n_examples, length, *part.shape[1:]).transpose(1, 2) for part in parts)
        mask = _window(length, sliding_window, query.device)
        outs.append(_attended(query, key, value, mask, scaling).transpose(1, 2).flatten(0, 1))
        start += n_examples * length
    out_MHd = outs[0] if len(outs) == 1 else torch.cat(outs)
    n_heads, width = out_MHd.shape[1:]
    if not packed.even:
        out_MHd = _Move.apply(out_MHd.reshape(len(out_MHd), -1), packed.home_N, packed.place_M, packed.behind_B)
    return out_MHd.view(1, -1, n_heads, width)


def _attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """Return [E, H, T, d] of E examples, causal where there is no mask."""
    n_heads, length, width = query.shape[1:]
    scaling = width**-0.5 if scaling is None else scaling
    # The fused kernel of a CPU is made for float32: its gradient in bfloat16 takes several times as long.
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and mask is None and length <= _SHORT:
        if key.shape[1] != n_heads:
            key, value = (part.repeat_interleave(n_heads // part.shape[1], dim=1) for part in (key, value))
        return _Short.apply(query, key, value, scaling)
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=key.shape[1] != n_heads,
    )


class _Short(torch.autograd.Function):
    """Causal attention of short rows [E, H, T, d] in three products forwards and four backwards, [T, T] kept.

    Heads pass a few at a time, so that their [T, T] stay in the processor's cache from one product to the next.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        q_GTd, k_GTd, v_GTd = (part.flatten(0, 1) for part in (query, key, value))
        length, out_GTd = query.shape[2], torch.empty_like(q_GTd)
        later_TT = q_GTd.new_full((length, length), -torch.inf).triu_(1)
        weights: list[Tensor] = []
        for chunk in _chunks(len(q_GTd), length):
            scores_CTT = torch.baddbmm(later_TT, q_GTd[chunk], k_GTd[chunk].mT, alpha=scaling)
            weights.append(scores_CTT.softmax(-1))
            out_GTd[chunk] = torch.bmm(weights[-1], v_GTd[chunk])
        ctx.save_for_backward(q_GTd, k_GTd, v_GTd, *weights)
        ctx.scaling = scaling
        return out_GTd.view(query.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_GTd, k_GTd, v_GTd, *weights = ctx.saved_tensors
        grad_GTd = grads[0].flatten(0, 1)
        found = [torch.empty_like(part) for part in (q_GTd, k_GTd, v_GTd)]
        for chunk, weight_CTT in zip(_chunks(len(q_GTd), q_GTd.shape[1]), weights, strict=True):
            slope_CTT = torch.bmm(grad_GTd[chunk], v_GTd[chunk].mT)
            slope_CTT = torch.ops.aten._softmax_backward_data(slope_CTT, weight_CTT, -1, weight_CTT.dtype)
            found[0][chunk] = torch.bmm(slope_CTT, k_GTd[chunk]).mul_(ctx.scaling)
            found[1][chunk] = torch.bmm(slope_CTT.mT, q_GTd[chunk]).mul_(ctx.scaling)
            found[2][chunk] = torch.bmm(weight_CTT.mT, grad_GTd[chunk])
        query, key, value = (part.view(grads[0].shape) for part in found)
        return query, key, value, None


def _chunks(n_heads: int, length: int) -> list[slice]:
    size = max(1, _CACHED // length**2)
    return [slice(start, start + size) for start in range(0, n_heads, size)]


def _window(length: int, sliding_window: int | None, device: torch.device) -> Tensor | None:
    """Return the causal mask [T, T] of a sliding window; None where the window holds every example."""
    if sliding_window is None or length <= sliding_window:
        return None
    age_T = torch.arange(length, device=device)
    distance_TT = age_T[:, None] - age_T
    return (distance_TT >= 0) & (distance_TT < sliding_window)


def _side_by_side(states: Tensor, packed: PackedBatch) -> Tensor:
    """Return [M, H, d] from [1, H, N, d]."""
    n_heads, width = states.shape[1], states.shape[3]
    flat_NW = states.transpose(1, 2).reshape(-1, n_heads * width)
    if not packed.even:
        flat_NW = _Move.apply(flat_NW, packed.place_M, packed.home_N, packed.padding_Q)
    return flat_NW.view(-1, n_heads, width)


class _Move(torch.autograd.Function):
    """Rows in another arrangement; the gradient moves back the same way, and padding gets none.

    The general gradient of a gather is a scattered sum, many times slower than this second gather.
    """

    @staticmethod
    def forward(ctx: Any, flat: Tensor, there: Tensor, back: Tensor, empty: Tensor) -> Tensor:
        ctx.save_for_backward(back, empty)
        return flat.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        back, empty = ctx.saved_tensors
        grad = grads[0].index_select(0, back)
        return grad.index_fill_(0, empty, 0.0) if empty.numel() else grad, None, None, None
