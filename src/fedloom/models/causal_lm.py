"""Any decoder of `transformers` that predicts the next token, with low-rank adapters or trained whole.

The base weights lie frozen in `dtype`; what training changes is a tree of float32 tensors that reach the module
through `torch.func.functional_call`. The module is always in evaluation mode: the one thing random in a forward pass
is the adapters' dropout, which draws from `Model.context`. Code that comes with a model is never run, and weights are
safetensors only.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from torch import nn

from fedloom.base.config import table_of
from fedloom.base.errors import ConfigError, MemoryExceededError, ModelError
from fedloom.base.files import atomic_folder
from fedloom.base.machine import free_bytes
from fedloom.base.plugin import Fraction, Positive, Range, plugin
from fedloom.base.tree import Tree
from fedloom.contracts.federated import ForwardContext, Model, ModelFamily
from fedloom.contracts.language import LanguageModel, Tokenizer, language_model
from fedloom.contracts.lineage import UNKNOWN, Lineage, joined, mark_trained, read_lineage
from fedloom.models import attention as packed
from fedloom.models.checkpoint import DTYPES, EMBEDDED, Checkpoint, Dtype
from fedloom.models.exact import Exact, Wish, examine, keeps_logits, plain_head
from fedloom.models.frozen import freeze
from fedloom.models.llama import TARGETS, Llama, LlamaShape
from fedloom.models.lora import factor_names, install, lora_layers, pattern, place, targeted_layers, usual_layers
from fedloom.models.peft_files import AdapterFile, lost_in_peft, read_adapter, write_adapter
from fedloom.models.precision import bfloat16_gain
from fedloom.models.prefix import install_prefix, prefix_names
from fedloom.models.quantised import QUANTISED, quantisation
from fedloom.models.starting import selected
from fedloom.models.whole_files import merge, write_whole
from fedloom.text.pretrained import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["CausalLM"]

_NO_NUMBERS = ("path", "adapter", "gradient_checkpointing")
"""Settings of which what is computed does not depend, or not by their text."""


@plugin("causal_lm")
class CausalLM(ModelFamily):
    """A causal language model by folder or hub name."""

    stackable: ClassVar[str] = r"\.(lora_[AB]|prefix\.(key|value))$"

    path: str = ""
    """Folder, GGUF file or hub name of the model; empty takes the model that ships in the package."""
    adapter: str = ""
    """Folder of an adapter in PEFT's format to start from."""
    lora_rank: Annotated[int, Range(0)] = 8
    """Rank of the adapters; 0 has none and, unless there is a prefix, trains the model's own parameters."""
    lora_alpha: Positive = 16.0
    """An adapter's product counts lora_alpha / lora_rank times."""
    lora_dropout: Fraction = 0.0
    """Share of an adapter's inputs that training drops."""
    lora_targets: tuple[str, ...] = ()
    """Names, or ends of names, of the linear layers with an adapter; empty takes all in the model's blocks that
    text passes, save layers of which an adapter is not what its layer computes, or not what `peft` reads."""
    prefix: Annotated[int, Range(0)] = 0
    """Places of trained keys and values before every sequence, in each layer: prefix tuning, beside adapters or, with
    `lora_rank = 0`, alone. 0 has none. For Llama, Qwen2 and GPT-2 with attention = 'packed'."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the base weights; what is trained is float32. `auto` takes bfloat16 for weights above 200 MB where the
    device computes it faster, and float32 elsewhere."""
    attention: Literal["packed", "sdpa", "eager", "flash_attention_2"] = "packed"
    """How attention is computed: `packed` handles each example by itself with PyTorch's fused kernel; the others are
    transformers' own, over the whole row of a batch with a block-diagonal mask (flash attention needs none). What is
    not exact for an architecture gives way to what is, down to one example at a time, and a note says so."""
    attends: Literal["causal", "prefix_lm"] = "causal"
    """What a token sees: those before it, or with `prefix_lm` within a prompt those behind it as well, as in GLM; a
    prompt ends where the first token is supervised. For plain Llamas with adapters or a prefix, packed."""
    quantise: Literal["none", "8bit", "4bit"] = "none"
    """Base weights of the blocks in 8 bits, or in 4 (NF4, double quantisation, bfloat16 computation)."""
    gradient_checkpointing: Literal["auto", True, False] = "auto"
    """Whether a block's inside is computed once more for its gradients and not kept: less memory for one more pass,
    with the same bits. For plain Llamas with adapters. `auto` does so where one client would not fit into half of the
    free memory without."""

    def check(self) -> None:
        """Refuse settings that contradict each other."""
        if self.lora_dropout == 1:
            raise ConfigError("lora_dropout: found 1, which drops every input; allowed is a number below 1.")
        if self._whole and self.adapter:
            raise ConfigError("adapter: found with lora_rank = 0, which has none; set lora_rank to the adapter's rank.")
        if self.prefix and self.attention != "packed":
            raise ConfigError(f"attention: found '{self.attention}' with a prefix, allowed is 'packed'; set it.")
        if self._whole and (self.dtype not in ("auto", "float32") or self.quantise != "none"):
            raise ConfigError("lora_rank: found 0, which trains all weights; allowed with dtype float32, unquantised.")
        if self.attention == "flash_attention_2" and self.dtype in ("auto", "float32"):
            raise ConfigError("attention: flash_attention_2 needs dtype bfloat16 or float16; set dtype, or use packed.")

    @property
    def _whole(self) -> bool:
        """Whether the model's own parameters are trained."""
        return not (self.lora_rank or self.prefix)

    def identity(self) -> str:
        """Return hashes of the base weights, the files beside them and the adapter, and the settings as JSON."""
        source = Checkpoint.find(self.path)
        adapter = AdapterFile.of(Path(self.adapter)).sha256 if self.adapter else ""
        settings = {key: value for key, value in table_of(self).items() if key not in _NO_NUMBERS}
        files = {"weights": source.base_id.rpartition(" ")[2], "files": source.files_sha256, "adapter": adapter}
        return json.dumps(files | settings, sort_keys=True)

    def lineage(self) -> Lineage:
        """Return the lineage of the base and of the adapter; an adapter that tells none is of unknown origin."""
        base = read_lineage(Checkpoint.find(self.path).folder) or ()
        if not self.adapter:
            return base
        own = read_lineage(Path(self.adapter))
        return joined(base, (UNKNOWN,) if own is None else own)

    def build(self, *, seed: int, device: torch.device, train: str | None = None) -> LanguageModel:
        """Return the model; `train` is a regular expression found anywhere in the names to train.

        By default every factor of the adapters is trained, with `lora_rank = 0` every parameter, a tied one once.
        Raises ModelError or MissingFileError for a folder, adapter or tokenizer that does not fit, ConfigError for a
        pattern that selects nothing or a device that cannot do what is asked.
        """
        in_bits = quantisation(self.quantise, device)
        source = Checkpoint.find(self.path)
        dtype = self._dtype(source, device)
        _refuse_little_memory(source, QUANTISED.get(self.quantise, 4 if dtype == "float32" else 2), device)
        tokenizer = source.tokenizer()
        source.verify()
        plain = self._plain(source, dtype, device)
        if not source.whole and (self._whole or self.quantise != "none"):
            raise ModelError(
                f"{source.folder.parent}: parts of a model, which are put together for adapters or a prefix, with "
                "quantise = 'none'; give the whole model."
            )
        if plain is None and self.attends != "causal":
            raise ConfigError(
                f"attends: found '{self.attends}', allowed for plain Llamas with adapters on their blocks or a prefix, "
                "attention = 'packed' and quantise = 'none'; set attends = 'causal'."
            )
        module, exact = plain or self._compared(source, dtype, device, in_bits)
        _check_vocabulary(source, module, tokenizer)
        context = ForwardContext()
        self._allow_recomputing(module, context)
        if not self._whole:
            self._add_adapter(module, source, context, seed, exact.targets)
            freeze(module)
        module.eval().requires_grad_(False)
        size = exact.positions or _context_size(module)
        trainable = {name: module.get_parameter(name).detach().clone() for name in self._selected(module, train)}
        return LanguageModel(
            module=module,
            trainable=trainable,
            tokenizer=tokenizer,
            context=context,
            base_id=source.base_id,
            stackable=all(re.search(self.stackable, name) for name in trainable),
            passage=exact.passage,
            exact_up_to=exact.exact_up_to and exact.exact_up_to - self.prefix,
            positions=exact.positions and exact.positions - self.prefix,
            first=self.prefix,
            both_ways=self.attends == "prefix_lm",
            notes=exact.notes,
            keeps=keeps_logits(module),
            head=plain_head(module, trainable) if exact.pieces else None,
            body_prefix=f"{module.base_model_prefix}.",
            context_size=size and size - self.prefix,
            ends=source.ends,
            dropout=self.lora_dropout,
            whole=source.whole,
            width=module.get_input_embeddings().get_parameter("weight").shape[1],
        )

    def _plain(self, source: Checkpoint, dtype: Dtype, device: torch.device) -> "tuple[Llama, Exact] | None":
        """Return a plain Llama with adapters in our own module, which is known to train exactly; None for any other."""
        if self._whole or self.attention != "packed" or self.quantise != "none":
            return None
        shape = LlamaShape.read(source.folder)
        module = shape and Llama.load(shape, source.weights, dtype=DTYPES[dtype], device=device, whole=source.whole)
        if not module or not TARGETS.issuperset(map(pattern, targeted_layers(module, self.lora_targets))):
            return None
        return module, Exact("packed", "packed", targets=TARGETS, pieces=True)

    def _compared(
        self, source: Checkpoint, dtype: Dtype, device: torch.device, quantisation: Any
    ) -> "tuple[PreTrainedModel, Exact]":
        """Return a model of transformers, and how it trains exactly: compared on a small twin before it is loaded."""
        packed.register()
        config = source.config()
        name = (config.architectures or [type(config).__name__])[0]
        wish = Wish(name, self.attention, self.lora_targets, whole=self._whole)
        exact = examine(config, wish, weight_bytes=source.weight_bytes)
        if self.prefix and exact.attention != "packed":
            raise ConfigError(f"prefix: found {self.prefix} for {name}, which attention 'packed' does not fit; set 0.")
        return source.module(dtype=dtype, attention=exact.attention, quantisation=quantisation, device=device), exact

    def _dtype(self, source: Checkpoint, device: torch.device) -> Dtype:
        """Return the type of the base weights on the device; bfloat16 where it is emulated is refused."""
        if self.dtype == "bfloat16" and (gain := bfloat16_gain(device)) < 1 / 3:
            raise ConfigError(
                f"dtype: found 'bfloat16', which {device} has not in hardware (a product takes {1 / gain:.0f} times as "
                "long as in float32); set dtype = 'auto' or 'float32'."
            )
        if self.dtype != "auto":
            return self.dtype
        large = not self._whole and source.weight_bytes >= 200_000_000
        return "bfloat16" if large and bfloat16_gain(device) > 1.5 else "float32"

    def _allow_recomputing(self, module: "PreTrainedModel | Llama", context: ForwardContext) -> None:
        """Let a plain Llama compute its blocks once more for their gradients; of other modules that is refused."""
        if isinstance(module, Llama):
            module.model.both_ways = self.attends == "prefix_lm"
        if isinstance(module, Llama) and self.gradient_checkpointing is not False:
            module.model.context, context.n_blocks = context, len(module.model.layers)
            context.recompute = self.gradient_checkpointing is True
        elif self.gradient_checkpointing is True:
            raise ConfigError(
                f"gradient_checkpointing: found true for {type(module).__name__}, allowed for plain Llamas with "
                "adapters, attention = 'packed' and quantise = 'none'; leave it out."
            )

    def _add_adapter(
        self,
        module: "PreTrainedModel | Llama",
        source: Checkpoint,
        context: ForwardContext,
        seed: int,
        patterns: frozenset[str] | None,
    ) -> None:
        targets = self.lora_targets
        if patterns is not None and not targets:
            targets = [name for name in usual_layers(module) if pattern(name) in patterns]
        if self.lora_rank:
            install(
                module,
                targets=targets,
                rank=self.lora_rank,
                alpha=self.lora_alpha,
                dropout=self.lora_dropout,
                seed=seed,
                context=context,
            )
        if self.prefix:
            install_prefix(module, places=self.prefix, heads=_heads(module), seed=seed, context=context)
        if self.adapter:
            place(module, self._read(module, Path(self.adapter), source.base_id))

    def _selected(self, module: nn.Module, train: str | None) -> list[str]:
        names = [name for name, _ in module.named_parameters()]
        factors = {*factor_names(module), *prefix_names(module)}
        usual = [name for name in names if name in factors] or names
        ends = {name.rpartition(".")[2] for name in usual}
        chosen = selected(usual if train is None else names, train, ends)
        frozen = [name for name in chosen if factors and name not in factors]
        if frozen:
            raise ConfigError(
                f"train: '{train}' selects '{frozen[0]}', a base weight; allowed are lora_A and lora_B, "
                "key and value of a prefix, or set model.lora_rank = 0 to train the model's own parameters."
            )
        return chosen

    def save(self, model: Model, params: Tree, folder: str) -> None:
        """Write an adapter in PEFT's format or, with `lora_rank = 0`, the whole model with its tokenizer.

        What `params` leaves out keeps the value it was built with. Each file is renamed into place. Raises RunError
        if the disk refuses, ModelError for a tensor that is not the model's.
        """
        if not self._whole:
            base = self.path or EMBEDDED
            both_ways = self.attends == "prefix_lm"
            write_adapter(model.module, params, Path(folder), base=base, base_id=model.base_id, both_ways=both_ways)
        else:
            write_whole(language_model(model), params, Path(folder))

    def load_adapter(self, model: Model, folder: str) -> Tree:
        """Return all factors of an adapter in PEFT's format, ours or not, by their names in the model.

        Raises ModelError for another base, rank, alpha, other layers or shapes, NaN, pickles and torn files.
        """
        if self._whole:
            raise ModelError(f"{folder}: an adapter, but the model was built with lora_rank = 0, which has none.")
        return self._read(model.module, Path(folder), model.base_id)

    def _read(self, module: nn.Module, folder: Path, base_id: str) -> Tree:
        if (found := AdapterFile.of(folder).attends) != self.attends:
            raise ModelError(f"{folder}: attends as '{found}', the run has '{self.attends}'; set model.attends.")
        return read_adapter(module, folder, base=self.path, base_id=base_id)

    @classmethod
    def for_adapter(cls, folder: Path) -> "CausalLM":
        """Return the settings with which `build` gives the base of an adapter and the adapter on it."""
        found = AdapterFile.of(folder)
        if not found.base:
            raise ModelError(f"{folder}: no base_model_name_or_path in adapter_config.json; name the base there.")
        return cls(
            path="" if found.base == EMBEDDED or found.base_id.startswith(f"{EMBEDDED} ") else found.base,
            adapter=str(folder),
            lora_rank=found.rank,
            prefix=found.places,
            attends=found.attends,
            lora_alpha=found.alpha,
            lora_dropout=found.dropout,
            lora_targets=found.layers,
        )

    def base_facts(self) -> dict[str, str]:
        """Return what a model card says of the base: its name, the hash of its weights and its licence."""
        source = Checkpoint.find(self.path)
        name, _, weights = source.base_id.rpartition(" ")
        return {"Base model": name, "Base weights": weights, "Licence of the base": source.licence}

    def write_adapter(self, folder: Path, *, base: str = "") -> None:
        """Write `adapter` anew, as PEFT reads it, and the tokenizer of its base; nothing is built for training.

        The adapter calls its base as `base` says, left out by the folder or hub name under which it is loaded here.
        Raises ModelError if PEFT would take layers of it for something else, or attend in another way.
        """
        self._refuse_both_ways()
        source = Checkpoint.find(self.path)
        tokenizer, module = source.tokenizer(), source.module(dtype="auto")
        self._add_adapter(module, source, ForwardContext(), 0, None)
        lost = lost_in_peft(module.config.model_type, list(lora_layers(module)))
        if lost:
            raise ModelError(
                f"'{lost[0]}', as {len(lost)} layers in all: peft does not load an adapter on a layer of that name "
                "in this architecture; export the run with --merged, or train with model.lora_targets without them."
            )
        here = self.path if source.name == self.path else str(source.folder.resolve())  # a hub name is its own
        write_adapter(module, {}, folder, base=base or here, base_id=source.base_id)
        tokenizer.save_pretrained(folder)

    def _refuse_both_ways(self) -> None:
        if self.attends != "causal":
            raise ModelError(f"{self.adapter}: attends as '{self.attends}', which others would load as a causal model.")

    def write_merged(self, folder: Path) -> None:
        """Write the base with `adapter` added into its weights, in the type in which they are stored, and a tokenizer.

        The sum is taken in float32. Raises ModelError if an adapted weight is tied to another, which it would change,
        and for a prefix, which no weight holds.
        """
        self._refuse_both_ways()
        if self.prefix:
            raise ModelError(f"{self.adapter}: a prefix is no sum with weights; export the adapter without --merged.")
        source = Checkpoint.find(self.path)
        tokenizer = source.tokenizer()
        module = source.module(dtype="auto")
        self._add_adapter(module, source, ForwardContext(), 0, None)
        merge(module)
        with quiet(), atomic_folder(folder) as new:
            module.save_pretrained(new)
            mark_trained(new)
            tokenizer.save_pretrained(new)


def _refuse_little_memory(source: Checkpoint, bytes_each: float, device: torch.device) -> None:
    """Refuse a model whose weights alone do not fit, before any is read."""
    need, free = source.n_parameters * bytes_each, free_bytes(device)
    if need > free:
        raise MemoryExceededError(
            f"{source.folder}: {source.n_parameters:,} weights of {bytes_each:g} bytes take {need / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} are free on {device}; set model.dtype = 'bfloat16', or take a smaller model."
        )


def _context_size(module: "PreTrainedModel | Llama") -> int | None:
    """Return the tokens of a context as the configuration states them."""
    if isinstance(module, Llama):
        return module.shape.positions
    options = module.config.get_text_config().to_dict()
    return next((int(options[name]) for name in ("max_position_embeddings", "n_positions") if options.get(name)), None)


def _heads(module: "PreTrainedModel | Llama") -> tuple[int, int]:
    """Return how many heads of keys and values a layer has, and the width of a head."""
    if isinstance(module, Llama):
        return module.shape.n_groups, module.shape.head_width
    config: Any = module.config
    n_heads, told = config.num_attention_heads, config.to_dict()
    return told.get("num_key_value_heads") or n_heads, told.get("head_dim") or config.hidden_size // n_heads


def _check_vocabulary(source: Checkpoint, module: "PreTrainedModel | Llama", tokenizer: Tokenizer) -> None:
    n_embedded = len(module.get_input_embeddings().get_parameter("weight"))
    if len(tokenizer) > n_embedded:
        raise ModelError(
            f"{source.folder}: the tokenizer has {len(tokenizer)} tokens, the model embeds {n_embedded}; "
            "use the tokenizer that belongs to the model."
        )
