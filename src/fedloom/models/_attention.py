"""Attention over a packed batch: each example attends to itself alone, through PyTorch's fused kernel.

The linear layers of a model see one row of tokens without padding between them. Here queries, keys and values are
gathered into [E, T], an example a line; as padding lies behind, the causal kernel needs no mask, and whatever stands
there reaches no real token. It goes to `transformers` under the name `packed`. Without a packed batch (generation) it
is `transformers`' own `sdpa`.

The result is that of a block-diagonal mask over the whole row, at the cost of T instead of N columns.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from fedloom.contracts import Batch
from fedloom.errors import ModelError

__all__ = ["NAME", "packed_attention", "register", "rows"]

NAME = "packed"


def register() -> None:
    """Make the attention known to `transformers`; doing it twice changes nothing."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    packed: Batch | None = None,
    **others: Any,  # transformers hands every attention function all its options
) -> tuple[Tensor, None]:
    """Return [1, N, H, d] from queries [1, H, N, d], keys and values of as many or fewer heads."""
    if packed is None:
        options = others | {"sliding_window": sliding_window}
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    if others.get("softcap") is not None or others.get("s_aux") is not None:
        raise ModelError(
            f"{type(module).__name__}: its attention is not plain softmax (soft cap or sinks), which packed batches do "
            "not know; set model.attention = 'eager'."
        )
    mask = None
    length = packed.place_ET.shape[1]
    if sliding_window is not None and length > sliding_window:
        ages = torch.arange(length, device=query.device)
        distance = ages[:, None] - ages
        mask = (distance >= 0) & (distance < sliding_window)
    query, key, value = (_by_example(part, packed) for part in (query, key, value))
    out = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return _by_token(out, packed), None


def _by_example(states: Tensor, packed: Batch) -> Tensor:
    """Return [E, H, T, d] from [1, H, N, d]."""
    n_heads, width = states.shape[1], states.shape[3]
    flat_NW = states.transpose(1, 2).reshape(-1, n_heads * width)
    return rows(flat_NW, packed).view(*packed.place_ET.shape, n_heads, width).transpose(1, 2)


def rows(flat_NW: Tensor, packed: Batch) -> Tensor:
    """Return the tokens [E * T, W] of the examples side by side from those of the packed row."""
    if packed.even:
        return flat_NW
    return _Move.apply(flat_NW, packed.place_ET.view(-1), packed.home_N, packed.padding_Q)


def _by_token(states: Tensor, packed: Batch) -> Tensor:
    """Return [1, N, H, d] from [E, H, T, d]."""
    n_heads, width = states.shape[1], states.shape[3]
    flat_MW = states.transpose(1, 2).reshape(-1, n_heads * width)
    if not packed.even:
        flat_MW = _Move.apply(flat_MW, packed.home_N, packed.place_ET.view(-1), packed.behind_M)
    return flat_MW.view(1, -1, n_heads, width)


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
