"""Adapters on disk in PEFT's format (https://github.com/huggingface/peft, `PeftModel.save_pretrained`).

A folder holds `adapter_config.json` and `adapter_model.safetensors`, in which our `X.lora_A` is called
`base_model.model.X.lora_A.weight`. The file's one metadata entry, `base_id`, says which base weights the adapter was
trained on, where PEFT keeps a name only; a second entry would make the bytes differ from run to run, as safetensors
writes metadata in no fixed order.

A prefix alone is PEFT's prefix tuning: one tensor, `prompt_embeddings` [L, 2 n G d], keys before values of each of n
layers. For a prefix beside low-rank factors, and for attention that is not causal, PEFT has no format: the folder then
has a peft_type of our own, which PEFT refuses.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fedloom.base.errors import MissingFileError, ModelError
from fedloom.base.files import atomic_folder
from fedloom.base.tree import Tree
from fedloom.models.checkpoint import EMBEDDED, checked_tensors
from fedloom.models.lora import LoraLinear, factor_names, is_transposed, lora_layers
from fedloom.models.prefix import prefix_names
from fedloom.text.pretrained import one_line

__all__ = ["AdapterFile", "lost_in_peft", "read_adapter", "write_adapter"]

_CONFIG, _WEIGHTS, _PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_PREFIX, _SUFFIX = "base_model.model.", ".weight"
_LORA, _PLACES, _OWN = "LORA", "PREFIX_TUNING", "FEDLOOM"
_FLAT = "prompt_embeddings"
_NUMBERS = {
    _LORA: "no numbers under r and lora_alpha",
    _PLACES: "no number under num_virtual_tokens",
    _OWN: "no numbers under r, lora_alpha and num_virtual_tokens",
}
Attends = Literal["causal", "prefix_lm"]
_PLAIN: tuple[Any, ...] = (None, False, "none", [], {})
_BEYOND_PLAIN = (  # settings of PEFT with which (alpha / r) B A is not all that an adapter does
    "use_rslora",
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "bias",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")  # starts that leave the base weights as they are


_EXPERTS = {  # what experts were called before transformers fused them, by the kind of architecture
    "qwen2_moe": ("gate", "gate_proj", "up_proj", "down_proj"),
    "mixtral": ("gate", "w1", "w2", "w3"),
}


_MAMBA = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")


def lost_in_peft(model_type: str, layers: Sequence[str]) -> list[str]:
    """Return those of the layers whose adapters PEFT does not load as they are, told by the last part of their name.

    It moves adapters with the old names of experts to the fused experts of transformers 5, and drops those of dense
    layers and shared experts that are called so too; the table by which it goes is transformers' own. In models with
    Mamba layers it refuses `out_proj`.
    """
    from transformers import conversion_mapping

    kinds: dict[str, str] = {**vars(conversion_mapping).get("_MODEL_TO_CONVERSION_PATTERN", {}), "mixtral": "mixtral"}
    lost = ("out_proj",) if model_type in _MAMBA else _EXPERTS.get(kinds.get(model_type, ""), ())
    return [name for name in layers if name.rpartition(".")[2] in lost]


def _on_disk(name: str) -> str:
    return f"{_PREFIX}{name}{_SUFFIX}"


@dataclass(frozen=True)
class AdapterFile:
    """What a folder says of the adapter in it, before a model is loaded."""

    folder: Path
    base: str
    """Base model as PEFT names it: a path or a hub name; "" if not stated."""
    base_id: str
    """Name and SHA-256 of the base weights; "" if PEFT wrote the file."""
    rank: int
    alpha: float
    dropout: float
    places: int
    """Places of its prefix; 0 where it has none."""
    attends: Attends
    """What a token sees where it was trained."""
    names: tuple[str, ...]
    """Tensors by their names in the file."""

    @classmethod
    def of(cls, folder: Path) -> "AdapterFile":
        """Return the description of an adapter; one that is no plain LoRA or prefix, is pickled or torn is refused."""
        config, weights = _config(folder), folder / _WEIGHTS
        if not weights.is_file() and (folder / _PICKLE).is_file():
            raise ModelError(f"{folder}: holds pickled weights ({_PICKLE}), allowed is {_WEIGHTS}; convert them.")
        if not weights.is_file():
            raise MissingFileError(f"{weights}: missing; an adapter is {_CONFIG} with {_WEIGHTS}.")
        names = tuple(checked_tensors(weights))
        with safe_open(weights, "pt") as tensors:
            metadata = tensors.metadata() or {}
        try:
            numbers = _numbers(config)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{folder / _CONFIG}: {_NUMBERS[config['peft_type']]}; write the adapter again."
            ) from error
        attends: Attends = "prefix_lm" if config.get("attends") == "prefix_lm" else "causal"
        base = config.get("base_model_name_or_path") or ""
        return cls(folder, base, metadata.get("base_id", ""), *numbers, attends, names)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file of the adapter's tensors."""
        return f"sha256:{hashlib.sha256((self.folder / _WEIGHTS).read_bytes()).hexdigest()}"

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that the adapter changes."""
        ending = f".lora_A{_SUFFIX}"
        return tuple(name[len(_PREFIX) : -len(ending)] for name in self.names if name.endswith(ending))


def _numbers(config: Mapping[str, Any]) -> tuple[int, float, float, int]:
    """Return rank, alpha and dropout of the factors, and the places of a prefix."""
    kind = config["peft_type"]
    places = 0 if kind == _LORA else int(config["num_virtual_tokens"])
    if kind == _PLACES or (kind == _OWN and not config["r"]):
        return 0, 16.0, 0.0, places
    return int(config["r"]), float(config["lora_alpha"]), float(config.get("lora_dropout", 0.0)), places


def _config(folder: Path) -> dict[str, Any]:
    file = folder / _CONFIG
    if not file.is_file():
        raise MissingFileError(f"{file}: missing; an adapter is {_CONFIG} with {_WEIGHTS}.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file}: no JSON ({one_line(error)}); write the adapter again.") from error
    if not isinstance(config, dict) or config.get("peft_type") not in (_LORA, _PLACES, _OWN):
        raise ModelError(f"{file}: no LoRA adapter (peft_type is not 'LORA'); allowed are plain LoRA and a prefix.")
    if config.get("prefix_projection"):
        raise ModelError(f"{file}: prefix_projection is true, allowed is a prefix that is trained itself.")
    for key in _BEYOND_PLAIN:
        if config.get(key) not in _PLAIN:
            raise ModelError(f"{file}: {key} is {config[key]!r}, allowed is plain LoRA, without {key}.")
    if config.get("init_lora_weights") not in _STARTS:
        raise ModelError(f"{file}: init_lora_weights {config['init_lora_weights']!r} belongs to altered base weights.")
    return config


def write_adapter(
    module: nn.Module, params: Tree, folder: Path, *, base: str, base_id: str, both_ways: bool = False
) -> None:
    """Write the module's adapter with `params` in place of its own factors, so that `peft` loads it.

    `params` [R, D] and [O, R] by their names in the module; factors that it leaves out keep the module's values.
    `both_ways` says that tokens of a prompt saw one another, which PEFT does not know.
    """
    layers, places = lora_layers(module), prefix_names(module)
    known = [*factor_names(module), *places]
    odd = sorted(params.keys() - set(known))
    if odd:
        raise ModelError(f"'{odd[0]}' is no factor of the model's adapter; PEFT's format holds lora_A and lora_B only.")
    found: Tree = {}
    for name in known:
        own = module.get_parameter(name)
        tensor = params.get(name, own).detach()
        if tensor.shape != own.shape:
            raise ModelError(f"'{name}' has shape {tuple(tensor.shape)}, the model's adapter has {tuple(own.shape)}.")
        found[name] = tensor.cpu().contiguous()
    tensors = {_on_disk(name): tensor for name, tensor in found.items() if name not in places}
    if places:
        tensors[_FLAT] = torch.stack([found[name] for name in places], dim=1).flatten(1)
    config = _peft_config(layers, module, base) if layers else {}
    config |= _prefix_config([found[name] for name in places], base) if places else {}
    if both_ways or (layers and places):
        config = {"r": 0, "num_virtual_tokens": 0, **config, "peft_type": _OWN}
        config["attends"] = "prefix_lm" if both_ways else "causal"
    with atomic_folder(folder) as new:
        (new / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (new / _WEIGHTS).write_bytes(save(tensors, metadata={"base_id": base_id}))


def _peft_config(layers: Mapping[str, LoraLinear], module: nn.Module, base: str) -> dict[str, Any]:
    first = next(iter(layers.values()))
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": first.rank,
        "lora_alpha": int(first.alpha) if first.alpha.is_integer() else first.alpha,
        "lora_dropout": first.dropout,
        "target_modules": _target_modules(layers, module),
        "fan_in_fan_out": any(is_transposed(layer.base) for layer in layers.values()),
        "bias": "none",
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _prefix_config(parts: Sequence[Tensor], base: str) -> dict[str, Any]:
    """Return what PEFT writes of a prefix whose keys and values are `parts`, each [L, G, d]."""
    n_places, n_heads, width = parts[0].shape
    return {
        "peft_type": _PLACES,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "num_virtual_tokens": n_places,
        "num_layers": len(parts) // 2,
        "num_attention_heads": n_heads,
        "token_dim": n_heads * width,
        "encoder_hidden_size": n_heads * width,
        "num_transformer_submodules": 1,
        "prefix_projection": False,
        "inference_mode": True,
    }


def _target_modules(layers: Mapping[str, LoraLinear], module: nn.Module) -> list[str]:
    """Return the last parts of the layers' names where they select just these layers, else the whole names."""
    ends = {name.rpartition(".")[2] for name in layers}
    selected = {name for name, _ in module.named_modules() if name.rpartition(".")[2] in ends}
    return sorted(ends if selected == set(layers) else layers)


def read_adapter(module: nn.Module, folder: Path, *, base: str, base_id: str) -> Tree:
    """Return all factors and prefixes of an adapter in PEFT's format, float32, by their names in the module.

    Raises ModelError if the adapter belongs to another base (by hash where the file states it, else by name), differs
    in rank, alpha, layers, places or shapes, or holds NaN or infinity.
    """
    found = AdapterFile.of(folder)
    _check_base(found, base, base_id)
    _check_layers(found, module)
    with safe_open(folder / _WEIGHTS, "pt") as tensors:
        read: Tree = {name: tensors.get_tensor(_on_disk(name)) for name in factor_names(module)}
        if names := prefix_names(module):
            read |= _prefixes(tensors.get_tensor(_FLAT), {name: module.get_parameter(name) for name in names}, folder)
    tree: Tree = {}
    for name, own in module.named_parameters():
        if name not in read:
            continue
        tensor = read[name]
        if tensor.shape != own.shape:
            raise ModelError(f"{folder}: '{name}' is {tuple(tensor.shape)}, this model needs {tuple(own.shape)}.")
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{folder}: '{name}' holds NaN or infinity; use an earlier checkpoint.")
        tree[name] = tensor.to(own.device, torch.float32)
    return tree


def _prefixes(flat: Tensor, own: Tree, folder: Path) -> Tree:
    """Return keys and values [L, G, d] by name from the one tensor of the file."""
    n_places, *heads = next(iter(own.values())).shape
    wanted = (n_places, len(own) * math.prod(heads))
    if flat.shape != wanted:
        raise ModelError(f"{folder}: '{_FLAT}' is {tuple(flat.shape)}, this model needs {wanted}.")
    return dict(zip(own, flat.unflatten(1, (len(own), *heads)).unbind(1), strict=True))


def _check_base(found: AdapterFile, base: str, base_id: str) -> None:
    if found.base_id:
        same = found.base_id.rpartition(":")[2] == base_id.rpartition(":")[2]
        stated, ours = found.base_id, base_id
    else:
        stated, ours = found.base, base or EMBEDDED
        same = not stated or PurePath(stated).name == PurePath(ours).name
    if not same:
        raise ModelError(
            f"{found.folder}: adapter of another base ('{stated}', the run's model is '{ours}'); "
            f"set model.path to its base, or correct base_model_name_or_path in {_CONFIG} if they are the same."
        )


def _check_layers(found: AdapterFile, module: nn.Module) -> None:
    first, places = next(iter(lora_layers(module).values()), None), prefix_names(module)
    pairs = [("lora_rank", found.rank, first.rank if first else 0)]
    pairs += [("lora_alpha", found.alpha, first.alpha)] if first else []
    pairs += [("prefix", found.places, len(module.get_parameter(places[0])) if places else 0)]
    for key, stated, ours in pairs:
        if stated != ours:
            word = key.removeprefix("lora_")
            raise ModelError(f"{found.folder}: {word} {stated:g}, the run has {ours:g}; set model.{key} = {stated:g}.")
    wanted = {_on_disk(name) for name in factor_names(module)} | ({_FLAT} if places else set[str]())
    odd = sorted(set(found.names) ^ wanted)
    if odd:
        whose = (
            "the adapter has and the run has not" if odd[0] in found.names else "the run has and the adapter has not"
        )
        ends = sorted({name.rpartition(".")[2] for name in found.layers})
        raise ModelError(
            f"{found.folder}: other targets than the run's: '{odd[0].removeprefix(_PREFIX)}' is a tensor that {whose}; "
            f"set model.lora_targets to the adapter's: {', '.join(ends) or 'none'}."
        )
