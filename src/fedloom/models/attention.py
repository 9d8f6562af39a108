"""Attention over a packed batch: each example attends to itself alone, through PyTorch's fused kernel.

The linear layers of a model see one row of tokens without padding between them. Here queries, keys and values are
gathered into groups of examples of like length, an example a line; as padding lies behind, the causal kernel needs no
mask, and whatever stands there reaches no real token. It goes to `transformers` under the name `packed`. Without a
packed batch (generation) it is `transformers`' own `sdpa`, or whatever a pass brings with it as `attend`. A layer's
prefix stands before each sequence, seen by all of its tokens. Prompts may be read in both directions: prefix language
models (Raffel et al., 2020, https://arxiv.org/abs/1910.10683, section 3.2.1), as GLM is one (Du et al., 2022,
https://arxiv.org/abs/2103.10360).

The result is that of a block-diagonal mask over the whole row, at the cost of an example's length, not the row's.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedloom.base.errors import ModelError
from fedloom.contracts.language import PackedBatch
from fedloom.models.prefix import prefix_of

__all__ = ["NAME", "Attend", "causal_attention", "packed_attention", "register"]

NAME = "packed"

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Gives [B, T, H, d] from a layer's number, queries [B, H, T, d], keys and values [B, G, T, d]."""

_SHORT = 512  # tokens of a row; at twice that the fused kernel is ahead again, and [T, T] is large
_QUERIES = 170  # of a block, about
_CACHED = 2**21  # weights worked off together: 4 MB in bfloat16


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
        attend: Attend | None = None,
        **options: Any,  # transformers hands every attention function all its options
    ) -> tuple[Tensor, None]:
        prefix = prefix_of(module, query, packed) if attend is None else None
        if packed is None and attend is None:
            if prefix is not None:
                attention_mask = _before(attention_mask, query.shape[2], key, prefix[0].shape[2])
                key, value = (_joined(*pair) for pair in zip(prefix, (key, value), strict=True))
            return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        if options.get("softcap") is not None or options.get("s_aux") is not None:
            raise ModelError(
                f"{type(module).__name__}: its attention is not plain softmax (soft cap or sinks), which packed "
                "batches do not know."
            )
        if attend is not None:
            return attend(_number_of(module), _as_usual(query, **options), key, value), None
        chosen: dict[str, Any] = {name: options.get(name) for name in ("scaling", "sliding_window")}
        return packed_attention(query, key, value, packed, prefix=prefix, **chosen), None  # pyright: ignore[reportArgumentType]

    AttentionInterface.register(NAME, attended)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _number_of(module: nn.Module) -> int:
    return int(vars(module)["layer_idx"])


def _as_usual(query: Tensor, *, scaling: float | None = None, sliding_window: int | None = None, **_: Any) -> Tensor:
    """Return queries [B, H, T, d] for whoever scales by d to the power -1/2 and sees all that was before."""
    if sliding_window is not None:
        raise ModelError("attention: found a sliding window, which is not known where keys and values are kept.")
    return query if scaling is None else query * (scaling * query.shape[-1] ** 0.5)


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed: PackedBatch,
    *,
    prefix: tuple[Tensor, Tensor] | None = None,
    both_ways: bool = False,
    scaling: float | None = None,
    sliding_window: int | None = None,
) -> Tensor:
    """Return [1, N, H, d] from queries [1, H, N, d], keys and values of as many or fewer heads.

    `prefix` has keys and values [E, G, L, d] to stand before each sequence, in the order of the groups. With
    `both_ways` the tokens of a sequence's prompt all see one another.
    """
    prompt_E = packed.by_group(packed.prompt_E) if packed.prompt_E is not None and both_ways else None
    if both_ways and prompt_E is None:
        raise ModelError("a batch that does not tell where prompts end cannot be read in both directions; pack it.")
    sizes = [n_examples * length for n_examples, length in packed.groups]
    wide = [_side_by_side(part, packed).split(sizes) for part in (query, key, value)]
    outs, start = list[Tensor](), 0
    for (n_examples, length), *parts in zip(packed.groups, *wide, strict=True):
        query, key, value = (part.view(n_examples, length, *part.shape[1:]).transpose(1, 2) for part in parts)
        mask = _window(length, sliding_window, query.device)
        if prompt_E is not None:
            mask = _over_prompts(prompt_E[start : start + n_examples], length)
        if prefix is not None:
            mask = _before(mask, length, key, prefix[0].shape[2])
            own = (part[start : start + n_examples] for part in prefix)
            key, value = (_joined(*pair) for pair in zip(own, (key, value), strict=True))
        start += n_examples
        outs.append(_attended(query, key, value, mask, scaling).transpose(1, 2).flatten(0, 1))
    out_MHd = outs[0] if len(outs) == 1 else torch.cat(outs)
    n_heads, width = out_MHd.shape[1:]
    if not packed.even:
        out_MHd = _Move.apply(out_MHd.reshape(len(out_MHd), -1), packed.home_N, packed.place_M, packed.behind_B)
    return out_MHd.view(1, -1, n_heads, width)


def causal_attention(query: Tensor, key: Tensor, value: Tensor, prefix: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return [B, T, H, d] of rows each by itself, from queries [B, H, T, d], keys and values [B, G, T, d]."""
    mask = None
    if prefix is not None:
        mask = _before(mask, query.shape[2], key, prefix[0].shape[2])
        key, value = (_joined(*pair) for pair in zip(prefix, (key, value), strict=True))
    return _attended(query, key, value, mask, None).transpose(1, 2)


def _joined(prefix: Tensor, states: Tensor) -> Tensor:
    """Return keys or values [E, G, L + T, d] with those of a prefix before them."""
    return torch.cat((prefix.to(states.dtype), states), dim=2)


def _before(mask: Tensor | None, length: int, key: Tensor, n_places: int) -> Tensor:
    """Return the mask [..., T, L + S] of S keys behind a prefix; without one the last of T queries sees all keys."""
    n_keys = key.shape[2]
    if mask is None:
        mask = torch.ones(length, n_keys, dtype=torch.bool, device=key.device).tril(n_keys - length)[None, None]
    seen = torch.ones if mask.dtype == torch.bool else torch.zeros
    return torch.cat((seen(*mask.shape[:-1], n_places, dtype=mask.dtype, device=mask.device), mask), dim=-1)


def _attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """Return [E, H, T, d] of E examples, causal where there is no mask."""
    n_heads, length, width = query.shape[1:]
    scaling = width**-0.5 if scaling is None else scaling
    # The fused kernel of a CPU is made for float32: its gradient in bfloat16 takes several times as long.
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and mask is None and length <= _SHORT:
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
    """Causal attention of short rows in three products forwards and four backwards, the weights kept.

    Queries [E, H, T, d] attend to keys and values [E, G, T, d], of which each serves R = H / G heads. A few queries at
    a time meet the keys up to their own, so that half of the square is spared, and a few of the C = E x G at a time, so
    that weights stay in the processor's cache from one product to the next.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        q_CRTd = (query * scaling).reshape(-1, query.shape[1] // key.shape[1], *query.shape[2:])
        k_CTd, v_CTd = (part.flatten(0, 1) for part in (key, value))
        out_CRTd, weights = torch.empty_like(q_CRTd), list[Tensor]()
        for chunk, rows, seen in _blocks(q_CRTd.shape):
            scores = torch.bmm(q_CRTd[chunk, :, rows].flatten(1, 2), k_CTd[chunk, seen].mT)
            square = scores.unflatten(1, (q_CRTd.shape[1], -1))[..., rows]
            square += square.new_full(square.shape[-2:], -torch.inf).triu_(1)
            weights.append(scores.softmax(-1))
            out_CRTd[chunk, :, rows] = torch.bmm(weights[-1], v_CTd[chunk, seen]).unflatten(1, square.shape[1:3])
        ctx.save_for_backward(q_CRTd, k_CTd, v_CTd, *weights)
        ctx.scaling = scaling
        return out_CRTd.view(query.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_CRTd, k_CTd, v_CTd, *weights = ctx.saved_tensors
        grad_CRTd = grads[0].reshape(q_CRTd.shape)
        by_q_CRTd = torch.empty_like(q_CRTd)
        by_k_CTd, by_v_CTd = (torch.zeros_like(k_CTd, dtype=torch.float32) for _ in range(2))
        for (chunk, rows, seen), weight in zip(_blocks(q_CRTd.shape), weights, strict=True):
            query, grad = (part[chunk, :, rows].flatten(1, 2) for part in (q_CRTd, grad_CRTd))
            slope = torch.bmm(grad, v_CTd[chunk, seen].mT)
            slope = torch.ops.aten._softmax_backward_data(slope, weight, -1, weight.dtype)
            by_q_CRTd[chunk, :, rows] = torch.bmm(slope, k_CTd[chunk, seen]).view_as(by_q_CRTd[chunk, :, rows])
            by_k_CTd[chunk, seen] += torch.bmm(slope.mT, query)
            by_v_CTd[chunk, seen] += torch.bmm(weight.mT, grad)
        by_k, by_v = (part.to(k_CTd.dtype).view(len(grads[0]), -1, *k_CTd.shape[1:]) for part in (by_k_CTd, by_v_CTd))
        return by_q_CRTd.mul_(ctx.scaling).view(grads[0].shape), by_k, by_v, None


def _blocks(shape: torch.Size) -> list[tuple[slice, slice, slice]]:
    """Return heads of keys, queries and the keys that these see, block by block; blocks are of like size."""
    n_keys, repeats, length = shape[:3]
    n_queries = -(-length // max(1, round(length / _QUERIES)))
    n_heads = max(1, _CACHED // (repeats * n_queries * length))
    ends = range(n_queries, length + n_queries, n_queries)
    return [
        (slice(head, head + n_heads), slice(end - n_queries, min(end, length)), slice(min(end, length)))
        for head in range(0, n_keys, n_heads)
        for end in ends
    ]


def _window(length: int, sliding_window: int | None, device: torch.device) -> Tensor | None:
    """Return the causal mask [T, T] of a sliding window; None where the window holds every example."""
    if sliding_window is None or length <= sliding_window:
        return None
    age_T = torch.arange(length, device=device)
    distance_TT = age_T[:, None] - age_T
    return (distance_TT >= 0) & (distance_TT < sliding_window)


def _over_prompts(prompt_E: Tensor, length: int) -> Tensor:
    """Return the mask [E, 1, T, T] with which a token sees those before it, and all of the prompt."""
    age_T = torch.arange(length, device=prompt_E.device)
    return (age_T <= age_T[:, None]) | (age_T < prompt_E[:, None, None, None])


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
