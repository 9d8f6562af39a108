"""Folders that hold a pretrained model: found, checked and loaded, or refused in one sentence.

Only safetensors are read, code that comes with a model is never run, and a folder is used only if it fills every
weight of the architecture and nothing is left over. What transformers would print meanwhile is kept back.
"""

import hashlib
import importlib.resources
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from safetensors import SafetensorError, safe_open

from fedloom.base.errors import ConfigError, MissingFileError, ModelError
from fedloom.contracts.language import Tokenizer
from fedloom.models.gguf_files import converted
from fedloom.models.part_files import WEIGHTS, Manifest, part_folders, read_part
from fedloom.text.pretrained import load, one_line, quiet
from fedloom.text.tokenizer import NoTokenizer, PlainTokenizer

if TYPE_CHECKING:  # the whole tree of transformers takes longer to import than the first step of a run
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["DTYPES", "EMBEDDED", "NEEDED", "Checkpoint", "Dtype", "checked_tensors"]

EMBEDDED = "fedloom-embedded"
"""The name of the model that ships in the package."""

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
DTYPES: dict[str, Any] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "auto": "auto",
}
"""Types of base weights by the names of the run file."""
_IN_PARTS = {"Qwen2ForCausalLM": ("model.rotary_emb",), "GPT2LMHeadModel": ()}
"""Architectures of transformers that are put together from parts, and what of them is computed and not stored."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
NEEDED = ["model*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "README.md"]


def checked_tensors(file: Path) -> list[str]:
    """Return the names of a safetensors file's tensors; one that is truncated or no such file raises ModelError."""
    try:
        with safe_open(file, "pt") as tensors:
            return list(tensors.keys())
    except SafetensorError as error:
        raise ModelError(f"{file}: no complete safetensors file ({one_line(error)}); fetch it again.") from error


@dataclass(frozen=True)
class Checkpoint:
    """A folder with config.json, safetensors and a tokenizer, and the name to call it by."""

    name: str
    folder: Path

    @classmethod
    def find(cls, path: str) -> "Checkpoint":
        """Return the model at a path: a local folder, a GGUF file, a hub name, or "" for the embedded one.

        Raises MissingFileError if there is no such model, ModelError if the folder cannot be used.
        """
        found: Checkpoint
        if not path:
            found = cls(EMBEDDED, Path(str(importlib.resources.files("fedloom"))) / "embedded" / "model")
        elif path.endswith(".gguf") and Path(path).is_file():
            found = cls(Path(path).stem, converted(Path(path)))
        elif parts := part_folders(Path(path)):
            found = PartsCheckpoint(Path(path).resolve().name, parts[0], tuple(parts))
        elif Path(path).exists():
            found = cls(Path(path).resolve().name, Path(path))
        else:
            found = cls(path, _from_hub(path))
        found.check()
        return found

    @property
    def whole(self) -> bool:
        """Whether all of the model's weights are here."""
        return True

    def verify(self) -> None:
        """Refuse weights that are not those of the identity: of a whole model it is their own hash."""

    def check(self) -> None:
        """Refuse a folder that cannot be used: ModelError, MissingFileError."""
        if (self.folder / "adapter_config.json").exists():
            raise ModelError(f"{self.folder}: an adapter, not a model; give it as model.adapter, its base as path.")
        if not (self.folder / "config.json").is_file():
            raise MissingFileError(f"{self.folder}: no config.json; a model is a folder as save_pretrained writes it.")
        for file in self.weights:
            checked_tensors(file)

    @cached_property
    def weights(self) -> list[Path]:
        """The safetensors files, in the order of their names."""
        single, index = self.folder / "model.safetensors", self.folder / "model.safetensors.index.json"
        files = [single] if single.exists() or not index.exists() else _shards(index)
        pickled = sorted(file.name for pattern in _PICKLES for file in self.folder.glob(pattern))
        for file in files:
            if not file.is_file() and pickled:
                raise ModelError(
                    f"{self.folder}: holds only pickled weights ({pickled[0]}), allowed are safetensors; "
                    "convert them with save_pretrained where you trust them."
                )
            if not file.is_file():
                raise MissingFileError(f"{file}: missing; a model's weights are safetensors.")
        return files

    @cached_property
    def base_id(self) -> str:
        """Name and SHA-256 of the weights: of the one file, or of all shards one after another."""
        hasher = hashlib.sha256()
        for path in self.weights:
            with path.open("rb") as file:
                while chunk := file.read(1 << 22):
                    hasher.update(chunk)
        return f"{self.name} sha256:{hasher.hexdigest()}"

    @property
    def files_sha256(self) -> str:
        """SHA-256 of what lies beside the weights and changes answers: configuration, tokenizer, chat template."""
        hasher = hashlib.sha256()
        kinds = (".json", ".jinja", ".model", ".txt")
        for path in sorted(path for path in self.folder.iterdir() if path.suffix in kinds):
            hasher.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        return f"sha256:{hasher.hexdigest()}"

    @property
    def weight_bytes(self) -> int:
        """The size of the weights as they are stored."""
        return sum(file.stat().st_size for file in self.weights)

    @cached_property
    def n_parameters(self) -> int:
        """How many numbers the weights are; of a tied one once."""
        total = 0
        for path in self.weights:
            with safe_open(path, "pt") as tensors:
                total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
        return total

    @property
    def licence(self) -> str:
        """The licence that the model's card states, or "unknown: see the base model"."""
        card = self.folder / "README.md"
        lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
        front = lines[1 : lines.index("---", 1)] if lines[:1] == ["---"] and "---" in lines[1:] else []
        stated = [line.partition(":")[2].strip().strip("'\"") for line in front if line.startswith("license:")]
        return stated[0] if stated and stated[0] else "unknown: see the base model"

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that generation_config.json says end an answer, or config.json where there is no such file."""
        own = self.folder / "generation_config.json"
        file = own if own.is_file() else self.folder / "config.json"
        try:
            stated = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
        except (ValueError, AttributeError) as error:
            raise ModelError(f"{file}: no JSON object ({one_line(error)}); fetch it again.") from error
        return frozenset(end for end in (stated if isinstance(stated, list) else [stated]) if isinstance(end, int))

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer; a folder without a usable one raises ModelError."""
        if (plain := PlainTokenizer.read(self.folder)) is not None:
            return plain
        from transformers import AutoTokenizer

        try:
            with quiet():
                return load(AutoTokenizer, self.folder)
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise ModelError(
                f"{self.folder}: no usable tokenizer ({one_line(error)}); put tokenizer.json beside the model."
            ) from error

    def config(self) -> "PreTrainedConfig":
        """Return the configuration; one of an unknown architecture, or with code of its own, raises ModelError."""
        from transformers import AutoConfig

        try:
            with quiet():
                return load(AutoConfig, self.folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{self.folder}: cannot be loaded as a causal model ({one_line(error)}).") from error

    def module(
        self,
        *,
        dtype: Dtype,
        attention: str | None = None,
        quantisation: Any = None,
        device: torch.device | None = None,
    ) -> "PreTrainedModel":
        """Return the module, its weights exactly those of the folder; without an attention, with its usual one.

        Raises ModelError if the architecture is unknown, needs code of its own, or does not match the weights.
        """
        from transformers import AutoModelForCausalLM

        try:
            with quiet():
                loaded: Any = load(
                    AutoModelForCausalLM,
                    self.folder,
                    dtype=DTYPES[dtype],
                    attn_implementation=attention,
                    quantization_config=quantisation,
                    device_map={"": device} if quantisation else None,
                    use_safetensors=True,
                    ignore_mismatched_sizes=True,  # reported, and refused below with their names
                    output_loading_info=True,
                )
        except ImportError as error:
            raise ConfigError(f"attention: '{attention}' cannot be used here ({one_line(error)}).") from error
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{self.folder}: cannot be loaded as a causal model ({one_line(error)}).") from error
        module, report = loaded
        self._refuse_partial(report)
        return module if quantisation or device is None else module.to(device)

    def _refuse_partial(self, report: dict[str, Any]) -> None:
        for kind, what in (
            ("mismatched_keys", "has another shape than config.json says"),
            ("missing_keys", "is missing from the weights"),
            ("unexpected_keys", "is in the weights but not in the architecture"),
        ):
            odd = sorted(str(item[0] if isinstance(item, tuple) else item) for item in report[kind])
            if odd:
                raise ModelError(
                    f"{self.folder}: '{odd[0]}' {what}, as {len(odd)} in all; config.json and the weights must agree."
                )


@dataclass(frozen=True)
class PartsCheckpoint(Checkpoint):
    """Some parts of a model, in folders of their own: those that a client of split training, or its server, needs."""

    parts: tuple[Path, ...]

    @property
    def whole(self) -> bool:
        """Whether all of the model's weights are here: they are not, or a folder of the whole would do."""
        return False

    def check(self) -> None:
        """Refuse parts that do not belong together."""
        super().check()
        first, *others = self._manifests
        for other in others:
            first.refuse_other(other)

    def verify(self) -> None:
        """Refuse tensors that differ from what their manifest tells."""
        for part in self.parts:
            read_part(part)

    def module(
        self,
        *,
        dtype: Dtype,
        attention: str | None = None,
        quantisation: Any = None,
        device: torch.device | None = None,
    ) -> "PreTrainedModel":
        """Return the module with the weights of its parts, and none where they are not here.

        Raises ModelError for an architecture of which no parts are known, and for tensors that are not its own.
        """
        from transformers import AutoModelForCausalLM

        config = self.config()
        with quiet(), torch.device("meta"):
            made: Any = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype], attn_implementation=attention)
        if type(made).__name__ not in _IN_PARTS or quantisation is not None:
            known = ", ".join((*sorted(_IN_PARTS), "plain Llamas"))
            raise ModelError(
                f"{self.folder.parent}: parts of a {type(made).__name__}, allowed are {known}; give the whole."
            )
        shapes = {name: one.shape for name, one in made.state_dict().items()}
        found = {name: one for part in self.parts for name, one in read_part(part)[1].items()}
        found = {name if name in shapes else f"{made.base_model_prefix}.{name}": one for name, one in found.items()}
        odd = sorted(name for name, one in found.items() if shapes.get(name) != one.shape)
        if odd:
            raise ModelError(f"{self.folder.parent}: '{odd[0]}' is not as config.json says; partition the model anew.")
        placed = {name: one.to(device, made.dtype) for name, one in found.items()}
        made.load_state_dict(placed, assign=True, strict=False)
        made.tie_weights()
        for name in _IN_PARTS[type(made).__name__]:
            made.set_submodule(name, type(made.get_submodule(name))(config).to(device))  # its buffers are no weights
        return made.eval()

    @property
    def _manifests(self) -> list[Manifest]:
        return [Manifest.read(part) for part in self.parts]

    @cached_property
    def weights(self) -> list[Path]:
        """The safetensors files, in the order of the model."""
        return [part / WEIGHTS for part in self.parts]

    @cached_property
    def base_id(self) -> str:
        """Name and SHA-256 of the weights of the whole model."""
        return self._manifests[0].base_id

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer; the middle of a model comes without one, and has nothing to read."""
        return super().tokenizer() if (self.folder / "tokenizer.json").is_file() else cast("Tokenizer", NoTokenizer())


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            return Path(snapshot_download(name, allow_patterns=NEEDED, ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:
        raise MissingFileError(
            f"model.path '{name}': neither a local folder nor a hub model that is cached or within reach; "
            "give the folder of a model, or download it first."
        ) from error


def _shards(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return [index.with_name(name) for name in sorted(names)]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index}: no index of weights ({one_line(error)}); fetch it again.") from error
