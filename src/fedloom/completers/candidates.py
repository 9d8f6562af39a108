"""Whose answers are examined: a run's result, an adapter, a whole model, or a model in memory, as a completer."""

import contextlib
import hashlib
import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fedloom.base import config
from fedloom.base.errors import MissingFileError
from fedloom.base.outside import import_plugins
from fedloom.base.plugin import AtLeast
from fedloom.base.tree import Tree
from fedloom.completers._identity import template_table
from fedloom.completers.model import LocalModel
from fedloom.contracts.evaluation import Answer, Completer
from fedloom.contracts.federated import Template
from fedloom.contracts.language import LanguageModel
from fedloom.models.causal_lm import CausalLM
from fedloom.models.generation import complete_with

__all__ = ["BuiltModel", "candidate", "run_of"]


@dataclass(frozen=True, kw_only=True)
class BuiltModel(Completer):
    """A model in memory with the values of its trained parameters."""

    model: LanguageModel
    params: Tree
    template: Template
    batch: AtLeast = 16

    def identity(self) -> str:
        """Return the name and hash of the base, a hash of the parameters and the template."""
        hasher = hashlib.sha256()
        for name, tensor in sorted(self.params.items()):
            hasher.update(name.encode() + b"\0" + tensor.detach().float().cpu().contiguous().numpy().tobytes())
        known = {"base": self.model.base_id, "params": hasher.hexdigest(), "template": template_table(self.template)}
        return json.dumps(known, sort_keys=True)

    @contextlib.contextmanager
    def opened(self) -> Generator[Answer]:
        """Give what answers; nothing is loaded."""
        with torch.no_grad():
            yield partial(complete_with, self.model, self.params, self.template, batch=self.batch)

    def together(self) -> int:
        """Return several batches, so that prompts of like length share one."""
        return 8 * self.batch


def candidate(folder: Path, *, template: Template | None = None, batch: int = 16) -> LocalModel:
    """Return the completer of what lies in a folder: a run directory, an adapter in PEFT's format or a whole model.

    A run, and whatever lies in the folder of one, is asked in the run's own template and number type, other folders in
    the tokenizer's template; `template` takes the place of either. Raises MissingFileError if there is no result.
    """
    result = _result_in(folder)
    run = run_of(folder)
    task = run.get("task")
    table: dict[str, Any] = {"model": _model_table(result, run), "batch": batch}
    if template is not None:
        table["template"] = config.table_of(template)
    elif isinstance(task, Mapping) and "template" in task:
        table["template"] = task["template"]
    return config.build(LocalModel, table, str(folder))


def _result_in(folder: Path) -> Path:
    for place in (folder, folder / "adapter"):
        if (place / "adapter_config.json").is_file() or (place / "config.json").is_file():
            return place
    own = sorted(place.name for place in folder.glob("adapters/*") if place.is_dir())
    if own:
        raise MissingFileError(
            f"{folder}: holds no common result but one for each of {len(own)} clients; name one of them, such as "
            f"{folder / 'adapters' / own[0]}."
        )
    raise MissingFileError(
        f"{folder}: neither a run directory with a result, nor an adapter, nor a model; finish or resume the run, or "
        "give another folder."
    )


def run_of(folder: Path) -> dict[str, Any]:
    """Return the resolved run file above the result in a folder, `adapter` or `adapters/<client>`; {} without one."""
    result = _result_in(folder).resolve()
    for place in result.parents[:2]:
        if (place / "run.toml").is_file() and result.relative_to(place).parts[0] in ("adapter", "adapters"):
            run = config.read_toml(place / "run.toml")
            import_plugins(run.get("plugins", ()), place)
            return run
    return {}


def _model_table(result: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    model = run.get("model")
    stated = dict(model) if isinstance(model, Mapping) else {}
    if not (result / "adapter_config.json").is_file():
        # A whole model is not trained further: an adapter of zeros is cheaper than a second copy of its parameters.
        return {"name": "causal_lm", "path": str(result), "lora_rank": 1}
    table = config.table_of(CausalLM.for_adapter(result))
    kept = {key: stated[key] for key in ("path", "dtype", "attention", "quantise", "attends") if key in stated}
    return table | kept
