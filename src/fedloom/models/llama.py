"""A plain Llama, written out: it starts without the tree of `transformers`, and its keys and values lie where we say.

Grouped attention (Ainslie et al., 2023, https://arxiv.org/abs/2305.13245), rotated positions (Su et al., 2021,
https://arxiv.org/abs/2104.09864, eq. 34), SwiGLU (Shazeer, 2020, https://arxiv.org/abs/2002.05202, eq. 6) and
root-mean-square norms; longer contexts by frequencies as in Llama 3.1. Names of parameters and steps of computation are
those of `LlamaForCausalLM`, to the last bit (tested); what config.json has beyond them makes a model none of these.

Shape letters: B rows, T tokens, H heads, G heads of keys and values, d width of a head, D width, V vocabulary.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from fedloom.base.errors import ModelError
from fedloom.contracts.language import PackedBatch
from fedloom.contracts.model import ForwardContext
from fedloom.models.attention import Attend, causal_attention, packed_attention
from fedloom.models.prefix import prefix_of, prefixes
from fedloom.models.recomputing import recomputed

__all__ = ["TARGETS", "Llama", "LlamaShape", "Out"]

TARGETS = frozenset(
    f"model.layers.*.{name}_proj"
    for name in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down")
)
"""Patterns of the linear layers of its blocks."""

_NEEDED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_USUAL: dict[str, Any] = {  # what a plain Llama may say of itself besides its sizes, and mean nothing else
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "pretraining_tp": 1,
    "quantization_config": None,
    "auto_map": None,
}

Kept = int | Tensor | tuple[Tensor, Tensor]
"""Whose logits are wanted: of how many last tokens (0 for all), at which places, or in which rows at which places."""


@dataclass(frozen=True)
class LlamaShape:
    """What config.json says of a plain Llama."""

    vocabulary: int
    width: int
    inner: int
    n_layers: int
    n_heads: int
    n_groups: int
    head_width: int
    eps: float
    tied: bool
    positions: int
    """Tokens of the context that the configuration states; there is no table that ends there."""
    rope: tuple[tuple[str, Any], ...]
    """How positions are rotated, by the configuration's names."""

    @classmethod
    def read(cls, folder: Path) -> "LlamaShape | None":
        """Return the shape of a folder's model; None for any other model, or one that is not read here."""
        try:
            stated: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            return cls._of(stated) if _is_plain(stated) else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # transformers says what is wrong with it

    @classmethod
    def _of(cls, stated: dict[str, Any]) -> "LlamaShape | None":
        vocabulary, width, inner, n_layers, n_heads = (int(stated[name]) for name in _NEEDED)
        rope = stated.get("rope_parameters") or {
            "rope_theta": stated.get("rope_theta", 10000.0),
            **(stated.get("rope_scaling") or {}),
        }
        rope["rope_type"] = rope.get("rope_type", rope.get("type", "default"))
        if rope["rope_type"] not in ("default", "llama3") or rope.get("partial_rotary_factor", 1.0) != 1.0:
            return None
        return cls(
            *(vocabulary, width, inner, n_layers, n_heads),
            n_groups=int(stated.get("num_key_value_heads") or n_heads),
            head_width=int(stated.get("head_dim") or width // n_heads),
            eps=float(stated.get("rms_norm_eps", 1e-6)),
            tied=bool(stated.get("tie_word_embeddings", False)),
            positions=int(stated.get("max_position_embeddings", 2048)),
            rope=tuple(sorted(rope.items())),
        )

    def frequencies(self) -> Tensor:
        """Return the angle [d / 2] by which a step of one position turns each pair of numbers, in float32."""
        rope = dict(self.rope)
        wave = torch.arange(0, self.head_width, 2, dtype=torch.float) / self.head_width
        turn = 1.0 / (rope["rope_theta"] ** wave)
        if rope["rope_type"] == "default":
            return turn
        longest = rope["original_max_position_embeddings"]
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        length = 2 * math.pi / turn
        slow = torch.where(length > longest / low, turn / rope["factor"], turn)
        share = (longest / length - low) / (high - low)
        between = ~(length < longest / high) * ~(length > longest / low)
        return torch.where(between, (1 - share) * slow / rope["factor"] + share * slow, slow)


def _is_plain(stated: dict[str, Any]) -> bool:
    own = stated.get("model_type") == "llama" and stated.get("architectures") == ["LlamaForCausalLM"]
    return own and all(stated.get(name, usual) == usual for name, usual in _USUAL.items())


@dataclass
class Out:
    """What a pass gives: the last states [B, T, D] of the blocks, or the logits [B, T', V] from them."""

    last_hidden_state: Tensor | None = None
    logits: Tensor | None = None


class _Attention(nn.Module):
    def __init__(self, shape: LlamaShape, *, fused: bool) -> None:
        super().__init__()
        heads, groups = shape.n_heads * shape.head_width, shape.n_groups * shape.head_width
        self.widths = (heads, groups, groups)
        self.n_heads, self.head_width = shape.n_heads, shape.head_width
        if fused:
            self.qkv_proj = nn.Linear(shape.width, sum(self.widths), bias=False)
        else:
            self.q_proj, self.k_proj, self.v_proj = (nn.Linear(shape.width, width, bias=False) for width in self.widths)
        self.o_proj = nn.Linear(heads, shape.width, bias=False)
        self.register_module("prefix", None)
        self.fused = fused

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], layer: int, attend: Attend) -> Tensor:
        """Return [B, T, D] from normed states of the same shape."""
        parts = (
            self.qkv_proj(x).split(self.widths, -1) if self.fused else (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        query, key, value = (part.unflatten(-1, (-1, self.head_width)).transpose(1, 2) for part in parts)
        return self.o_proj(attend(layer, _turned(query, turns), _turned(key, turns), value).flatten(2))


class _SwiGLU(nn.Module):
    def __init__(self, shape: LlamaShape, *, fused: bool) -> None:
        super().__init__()
        if fused:
            self.gate_up_proj = nn.Linear(shape.width, 2 * shape.inner, bias=False)
        else:
            self.gate_proj = nn.Linear(shape.width, shape.inner, bias=False)
            self.up_proj = nn.Linear(shape.width, shape.inner, bias=False)
        self.down_proj = nn.Linear(shape.inner, shape.width, bias=False)
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, T, D] from normed states of the same shape."""
        gate, up = self.gate_up_proj(x).chunk(2, -1) if self.fused else (self.gate_proj(x), self.up_proj(x))
        return self.down_proj(functional.silu(gate) * up)


class _Block(nn.Module):
    def __init__(self, shape: LlamaShape, *, fused: bool) -> None:
        super().__init__()
        self.self_attn = _Attention(shape, fused=fused)
        self.mlp = _SwiGLU(shape, fused=fused)
        self.input_layernorm = nn.RMSNorm(shape.width, eps=shape.eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, eps=shape.eps)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], layer: int, attend: Attend) -> Tensor:
        """Return states [B, T, D] from states of the same shape."""
        x = x + self.self_attn(self.input_layernorm(x), turns, layer, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class _Body(nn.Module):
    """All below the output head."""

    frequencies: Tensor

    def __init__(self, shape: LlamaShape, *, fused: bool) -> None:
        super().__init__()
        # Drawing a start that nobody uses would import torch's compiler.
        table_VD = torch.empty(shape.vocabulary, shape.width)
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width, _weight=table_VD)
        self.layers = nn.ModuleList(_Block(shape, fused=fused) for _ in range(shape.n_layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.eps)
        self.context: ForwardContext | None = None  # says whether blocks are computed once more for their gradients
        self.both_ways = False  # whether the tokens of a prompt see one another
        self.register_buffer("frequencies", torch.empty(shape.head_width // 2), persistent=False)

    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        packed: PackedBatch | None = None,
        attend: Attend | None = None,
        **_: Any,  # what transformers' models are told besides changes nothing here
    ) -> Out:
        """Return the last states of tokens [B, T], or of what stands for their embeddings [B, T, D].

        They are those of a packed batch, with keys and values kept, or each row alone.
        """
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            first = max((one.key.shape[-3] for one in prefixes(self).values()), default=0)
            position_ids = torch.arange(first, first + x.shape[1], device=x.device)[None]
        turns = self._turns(position_ids, x.dtype)
        seen = attend or self._attend(packed)
        again = self.context if attend is None and torch.is_grad_enabled() else None
        again = again if again and again.recompute else None
        for layer, block in enumerate(self.layers):
            x = recomputed(block, again, x, turns, layer, seen) if again else block(x, turns, layer, seen)
        return Out(last_hidden_state=self.norm(x))

    def _turns(self, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return cosine and sine [B, 1, T, d] of each position's angles."""
        angles = positions_BT[:, None, :, None].float() * self.frequencies.float()
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def _attend(self, packed: PackedBatch | None) -> Attend:
        def attended(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            prefix = prefix_of(self.layers[layer].get_submodule("self_attn"), query, packed)
            if packed is not None:
                return packed_attention(query, key, value, packed, prefix=prefix, both_ways=self.both_ways)
            if self.both_ways:
                raise ModelError("a plain row does not tell where its prompt ends; pass a packed batch.")
            return causal_attention(query, key, value, prefix)

        return attended


def _turned(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * turns[0] + torch.cat((-second, first), dim=-1) * turns[1]


class Llama(nn.Module):
    """A plain Llama with its output head: in evaluation mode always, and frozen."""

    base_model_prefix = "model"

    def __init__(self, shape: LlamaShape, *, fused: bool = False) -> None:
        """Have the parameters, but no numbers in them; layers that read the same states are one where `fused`."""
        super().__init__()
        self.shape = shape
        with torch.device("meta"):
            self.model = _Body(shape, fused=fused)
            self.lm_head = nn.Linear(shape.width, shape.vocabulary, bias=False)

    def filled(self, weights: Mapping[str, Tensor], *, whole: bool = True) -> "Llama":
        """Take tensors by their names as the parameters, without a copy, and return the module.

        Unless they are the `whole` of it, what they leave out keeps its shape and has no numbers.
        """
        table = weights.get("model.embed_tokens.weight")
        tied = {"lm_head.weight": table} if self.shape.tied and table is not None else {}
        self.load_state_dict({**weights, **tied}, assign=True, strict=whole)
        if tied:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.model.frequencies = self.shape.frequencies().to(next(iter(weights.values())).device)
        return self.eval().requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        """Return the table of the tokens' embeddings, by the name that `transformers` has for it."""
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        """Return the output head, by the name that `transformers` has for it."""
        return self.lm_head

    @classmethod
    def load(
        cls, shape: LlamaShape, files: list[Path], *, dtype: torch.dtype, device: torch.device, whole: bool = True
    ) -> "Llama | None":
        """Return the module with the weights of safetensors files; None where they are not exactly its own.

        Of parts of a model they are some of its own.
        """
        found = {name: tensor for file in files for name, tensor in load_file(file).items()}
        left_out = ("rotary_emb.inv_freq", *(("lm_head.weight",) if shape.tied else ()))
        found = {name: tensor for name, tensor in found.items() if not name.endswith(left_out)}
        made = cls(shape)
        wanted = {name: one.shape for name, one in made.named_parameters() if not name.endswith(left_out)}
        shapes = {name: tensor.shape for name, tensor in found.items()}
        if shapes != (wanted if whole else {name: wanted.get(name) for name in shapes}):
            return None
        # One tensor after another, so that a large model does not lie in memory in two types.
        return made.filled({name: found.pop(name).to(device, dtype) for name in list(found)}, whole=whole)

    def forward(self, input_ids: Tensor | None = None, *, logits_to_keep: Kept = 0, **inputs: Any) -> Out:
        """Return the logits [B, T, V], or those that are to be kept; `inputs` as the body takes them."""
        states = self.model(input_ids, **inputs).last_hidden_state
        if isinstance(logits_to_keep, tuple):
            return Out(logits=self.lm_head(states[logits_to_keep]))
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        return Out(logits=self.lm_head(states[:, kept]))
