"""Prefixes: trained keys and values that stand before every sequence, in each attention layer.

With L places, P_K and P_V [L, G, d] of a layer, token t attends there to

    [P_K; K_1 ... K_t] and [P_V; V_1 ... V_t],

which is prefix tuning (Li and Liang, 2021, https://arxiv.org/abs/2101.00190, eq. 3) with parameters in every layer
(P-tuning v2: Liu et al., 2022, https://arxiv.org/abs/2110.07602, section 3.2). As in `peft` a prefix's keys are not
rotated, and positions of tokens begin with L.

No input enters a prefix: it lives in the layer that uses it, and no other part of a model has to be told of it.

Parameters may carry a client axis [K, ...], or one of examples [E, ...], as those of `lora` do.

Shapes: K clients, E sequences, B rows, L places, G heads of keys and values, d width of a head.

Deviations: the numbers themselves are trained, not a perceptron that makes them (4.3 there). They start as N(0, 0.02^2)
from a named seed, and not with the states of words, which a side that has some blocks alone could not compute.
"""

from bisect import bisect_right
from collections import Counter

import torch
from torch import Tensor, nn

from fedloom.base import rng
from fedloom.base.errors import ConfigError
from fedloom.contracts.language import PackedBatch
from fedloom.contracts.model import ForwardContext

__all__ = ["Prefix", "install_prefix", "prefix_names", "prefix_of", "prefixes"]

_SPREAD = 0.02
_ATTENTION = {
    "Llama": "self_attn",
    "LlamaForCausalLM": "self_attn",
    "Qwen2ForCausalLM": "self_attn",
    "GPT2LMHeadModel": "attn",
}
"""What attention is called in the blocks of architectures whose keys and values a prefix may stand before."""


class Prefix(nn.Module):
    """Keys and values [L, G, d] of one layer in float32, or handed in with a leading axis."""

    def __init__(self, shape: tuple[int, int, int], context: ForwardContext, device: torch.device) -> None:
        super().__init__()
        self.key, self.value = (nn.Parameter(torch.zeros(shape, device=device)) for _ in range(2))
        self.context = context

    def forward(self, n_rows: int, packed: PackedBatch | None) -> tuple[Tensor, Tensor]:
        """Return keys and values [B, G, L, d]: of the sequences of a packed batch in the order of its groups.

        Without such a batch rows are as many for each client, client by client.
        """
        key, value = (self._dealt(part, n_rows, packed).transpose(1, 2) for part in (self.key, self.value))
        return key, value

    def _dealt(self, own: Tensor, n_rows: int, packed: PackedBatch | None) -> Tensor:
        """Return each row's [B, L, G, d]; gradients are sums over neighbours, in the same order every time."""
        slots = own if own.dim() == 4 else own[None]
        if not (packed is not None and self.context.per_example and own.dim() == 4):
            counts = _counts(packed, n_rows, len(slots))
            slots = torch.cat([one.expand(n, *one.shape) for one, n in zip(slots, counts, strict=True)])
        return slots if packed is None else packed.by_group(slots)


def _counts(packed: PackedBatch | None, n_rows: int, n_slots: int) -> list[int]:
    """Return how many rows each client has."""
    if packed is None or n_slots == 1:
        return [n_rows // n_slots] * n_slots
    starts = [start for start, _ in packed.spans]
    found = Counter(bisect_right(starts, start) - 1 for start, _ in packed.lines)
    return [found[client] for client in range(n_slots)]


def install_prefix(
    module: nn.Module, *, places: int, heads: tuple[int, int], seed: int, context: ForwardContext
) -> None:
    """Freeze the module and put a prefix of so many places into its attention layers, in place.

    `heads` says how many heads of keys and values there are, and how wide each is. Raises ConfigError for an
    architecture of which it is not known how a prefix passes.
    """
    architecture = type(module).__name__
    if architecture not in _ATTENTION:
        raise ConfigError(
            f"prefix: found {places} places for {architecture}, allowed for {', '.join(sorted(_ATTENTION))}: set "
            "model.prefix = 0 and take lora_rank >= 1."
        )
    module.requires_grad_(False)
    layers = {name: one for name, one in module.named_modules() if name.endswith(f".{_ATTENTION[architecture]}")}
    for name, layer in layers.items():
        weight = next(layer.parameters())
        made = Prefix((places, *heads), context, torch.device("cpu") if weight.is_meta else weight.device)
        with torch.no_grad():
            for part, own in made.named_parameters():
                draw = rng.generator(seed, "prefix", name, part)
                own.copy_(_SPREAD * torch.randn(own.shape, generator=draw))  # drawn on the CPU: the same everywhere
        layer.add_module("prefix", made.requires_grad_(False))


def prefix_of(attention: nn.Module, query: Tensor, packed: PackedBatch | None) -> tuple[Tensor, Tensor] | None:
    """Return keys and values [B, G, L, d] to stand before an attention layer's rows; None where it has no prefix.

    Queries are [B, H, T, d], or the one row of a packed batch, whose B sequences are then meant.
    """
    own = dict(attention.named_children()).get("prefix")
    if not isinstance(own, Prefix):
        return None
    return own(len(query) if packed is None else len(packed.client_E), packed)


def prefixes(module: nn.Module) -> dict[str, Prefix]:
    """Return all prefixes by name, in the order of the layers."""
    return {name: one for name, one in module.named_modules() if isinstance(one, Prefix)}


def prefix_names(module: nn.Module) -> list[str]:
    """Return the names of all prefixes' parameters, keys before values, in the order of the layers."""
    return [f"{name}.{part}" for name in prefixes(module) for part in ("key", "value")]
