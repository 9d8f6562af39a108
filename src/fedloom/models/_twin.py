"""A small twin of a model: the same architecture with random weights, in which every threshold is short.

What an architecture does beside its sizes (masks, windows, chunks, kinds of positions, multipliers, who is tied to
whom) is kept; windows and chunks become 8 tokens and the end of the positions 32, so that a hundred tokens pass all of
them. Large models also become narrow and less deep: of layers that differ by a list in the configuration each kind
stays.
"""

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fedloom.base import rng
from fedloom.text.pretrained import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["ENDS", "TROUBLE", "Twin", "twins"]

TROUBLE = (
    *(RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError),
    *(ImportError, AssertionError, ZeroDivisionError),
)
"""What the code of an architecture may raise where something does not suit it."""

_WINDOW, _POSITIONS = 8, 32
_NARROW = 128  # width from which on a twin is made narrower
_FEW = 200_000_000  # bytes of a model that may be built as it is
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
ENDS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx")
"""What configurations call the number of a model's positions."""
_TRAINED_TO = "original_max_position_embeddings"
_IS_WINDOW = re.compile(r"window|chunk|floor_scale")
_IS_NO_LENGTH = re.compile(r"layers|pattern|use_|period|freq")
_HEADS = {"num_attention_heads": 4, "n_head": 4, "n_heads": 4}
_GROUPS = ("num_key_value_heads", "num_kv_heads", "kv_n_heads")
_WIDTHS = {
    **{"hidden_size": 64, "n_embd": 64, "d_model": 64, "head_dim": 16, "rotary_dim": 8, "word_embed_proj_dim": 64},
    **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16},
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 32),
    **{
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "qk_head_dim": 32,
        "global_head_dim": 16,
        "vocab_size": 384,
        "vocab_size_per_layer_input": 384,
    },
}
_INNER = re.compile(r"intermediate_size|ffn_hidden_size$|^ffn_dim$|^n_inner$|^d_ff$")
_STATE_HEADS = (("mamba_n_heads", "mamba_d_head"), ("n_mamba_heads", "mamba_headdim"), ("num_heads", "head_dim"))


@dataclass(frozen=True)
class Twin:
    """A configuration with short thresholds, and what these are in the model itself."""

    config: "PreTrainedConfig"
    end: int
    """Tokens of the twin's positions."""
    ends: tuple[int, ...]
    """The same of the model: what its configuration calls the end of its positions, or of those trained on."""
    vocabulary: int

    def build(self, attention: str) -> "PreTrainedModel":
        """Return a module in evaluation mode; its weights are the same in every call, far from their start."""
        from transformers import AutoModelForCausalLM

        with quiet(), torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.set_rng_state(rng.generator("twin").get_state())
            made = AutoModelForCausalLM.from_config(
                deepcopy(self.config), attn_implementation=attention, dtype=torch.float32, trust_remote_code=False
            )
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                parameter.add_(torch.randn(parameter.shape, generator=rng.generator("twin", name)), alpha=0.1)
        return made.eval().requires_grad_(False)


def twins(config: "PreTrainedConfig", *, weight_bytes: int) -> Iterator[Twin]:
    """Yield twins, the cheapest first; one may not be possible where sizes depend on one another."""
    large = _width(config) > _NARROW
    if large:
        yield _twin(config, narrow=True, shallow=True)
        yield _twin(config, narrow=True, shallow=False)
    if not large or weight_bytes < _FEW:
        yield _twin(config, narrow=False, shallow=False)


def _width(config: "PreTrainedConfig") -> int:
    own = vars(config.get_text_config())
    return max((own[name] for name in ("hidden_size", "n_embd", "d_model") if type(own.get(name)) is int), default=0)


def _twin(config: "PreTrainedConfig", *, narrow: bool, shallow: bool) -> Twin:
    made = deepcopy(config)
    vars(made).pop("quantization_config", None)
    text = made.get_text_config()
    own = vars(text)
    ends = [own[name] for name in ENDS if type(own.get(name)) is int]
    ends += [value for value in _found(own, _TRAINED_TO) if type(value) is int]
    end = min([_POSITIONS, *ends])
    _shorten(own, end)
    if shallow:
        _make_shallow(own)
        for part in _parts(made):
            if part is not text:
                vars(part).update({name: 1 for name in (*_DEPTHS, "depth") if type(vars(part).get(name)) is int})
    if narrow:
        _make_narrow(own)
        for owner in {id(made): made, id(text): text}.values():
            tokens = [name for name in vars(owner) if re.search(r"(pad|bos|eos|sep)_token_id$", name)]
            vars(owner).update({name: place for place, name in enumerate(tokens) if vars(owner)[name] is not None})
    vocabulary = own.get("vocab_size", 0)
    return Twin(made, end, tuple(ends), vocabulary if type(vocabulary) is int and vocabulary else 256)


def _parts(config: "PreTrainedConfig") -> "list[PreTrainedConfig]":
    from transformers import PreTrainedConfig

    return [value for value in vars(config).values() if isinstance(value, PreTrainedConfig)]


def _found(table: dict[str, Any], wanted: str) -> list[Any]:
    """Return the values of one name in a table and in the tables in it."""
    inner = [value for each in table.values() if isinstance(each, dict) for value in _found(each, wanted)]
    return [*([table[wanted]] if wanted in table else []), *inner]


def _shorten(table: dict[str, Any], end: int) -> None:
    """Make windows, chunks and positions short, in the table and in the tables in it."""
    for name, value in table.items():
        if isinstance(value, dict):
            _shorten(value, end)
        elif type(value) is int and name in (*ENDS, _TRAINED_TO):
            table[name] = min(value, end)
        elif type(value) is int and _IS_WINDOW.search(name) and not _IS_NO_LENGTH.search(name):
            table[name] = min(value, _WINDOW)


def _make_shallow(own: dict[str, Any]) -> None:
    """Keep the first layers, and one of each kind that lists of the configuration tell apart."""
    name = next((name for name in _DEPTHS if type(own.get(name)) is int), None)
    if name is None:
        return
    depth: int = own[name]
    lists = {key: value for key, value in own.items() if isinstance(value, list) and len(value) == depth}
    kinds = [repr([value[place] for value in lists.values()]) for place in range(depth)]
    kept = sorted({*range(min(4 if lists else 8, depth)), *(kinds.index(kind) for kind in set(kinds))})
    if own.get("num_kv_shared_layers"):  # the last layers use what layers of their kind before them keep
        kept = [*range(max(map(kinds.index, kinds)) + 1)]
        own["num_kv_shared_layers"] = len(kept)
        kept = [*kept, *kept]
    own |= {key: [value[place] for place in kept] for key, value in lists.items()}
    own |= {key: own[key] * len(kept) // depth for key in _DEPTHS if type(own.get(key)) is int}


def _make_narrow(own: dict[str, Any]) -> None:
    heads = next((own[name] for name in _HEADS if type(own.get(name)) is int), 4)
    for name, value in own.items():
        if name in _GROUPS and type(value) is int:
            own[name] = 4 if value == heads else 1 if value == 1 else 2
    for name, value in own.items():
        small = (_WIDTHS | _HEADS).get(name, 96 if _INNER.search(name) else None)
        if small is not None and type(value) is int and value:
            own[name] = min(value, small)
        elif small is not None and isinstance(value, list):
            own[name] = [min(each, small) for each in value]
    expand = own.get("mamba_expand", own.get("expand"))
    for heads_name, width_name in _STATE_HEADS:
        # Heads of a state-space layer make up its inner width, unless that has a name of its own.
        if type(expand) is int and "mamba_d_ssm" not in own and type(own.get(heads_name)) is int:
            own[heads_name] = min(8, own[heads_name])
            own |= {width_name: expand * 64 // own[heads_name]} if width_name in own else {}
    _cut_factors(own)


def _cut_factors(table: dict[str, Any]) -> None:
    """Give rope's lists of factors, one for each frequency, the length that narrow heads need."""
    for name, value in table.items():
        if isinstance(value, dict):
            _cut_factors(value)
        elif name in ("short_factor", "long_factor") and isinstance(value, list):
            share = table.get("partial_rotary_factor") or 1.0
            table[name] = value[: int(16 * share) // 2]
