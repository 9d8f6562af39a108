"""The result of a run as a folder for others: an adapter or a whole model, its tokenizer and a model card."""

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedloom.base.config import build, read_toml, value_at
from fedloom.base.errors import FedloomError, MissingFileError, ModelError, RunError
from fedloom.base.files import atomic_folder, refuse_filled
from fedloom.contracts.federated import Template
from fedloom.contracts.lineage import UNKNOWN, Lineage, read_lineage, read_stated, unnamed, write_lineage
from fedloom.models.causal_lm import CausalLM
from fedloom.models.checkpoint import Checkpoint
from fedloom.runs.accounts import ACCOUNTS, is_private, spent_text, stated_privacy
from fedloom.runs.directory import RunDirectory
from fedloom.runs.text_templates import text_template
from fedloom.runs.tuning import modernised, with_plugins

__all__ = ["Form", "Told", "export"]

Form = Literal["adapter", "merged"]

_RUN_KEYS = ("rounds", "clients_per_round", "seed")
_RUN_TABLES = ("protocol", "data", "partition", "task", "rule", "aggregator", "server_opt")

Told = Sequence[tuple[str, str, str, str]]
"""Scores for a card: questions, score, value before training, value after it."""


def export(folder: Path, out: Path, *, form: Form = "adapter", base: str = "", scores: Told = ()) -> None:
    """Write what a run directory or an adapter folder holds to `out`, which must be new or empty.

    "adapter" writes PEFT's format, for `peft.AutoPeftModelForCausalLM.from_pretrained`; "merged" the base with the
    adapter added to its weights, for `AutoModelForCausalLM.from_pretrained`. A run that trained the whole model has
    only the latter. Both have a tokenizer, with the template of the training as its chat template, and a card with
    `scores`. `base` is what an adapter calls its base, such as a hub name; left out: where it lies on this machine.
    `out` appears whole or not at all. Raises MissingFileError without a result, RunError if `out` is taken or cannot
    be written, ModelError if base and adapter do not fit.
    """
    refuse_filled(out, "give a new folder to export to")
    result, run = _result_in(folder), _run_of(folder)
    lineage, stated = _lineage_of(result), read_stated(result)
    if run and _contradicts(folder, run, result, stated):
        raise RunError(
            f"{result}: lineage.json is missing or states another privacy than the run's records; restore it, or "
            "export nothing of this run."
        )
    with atomic_folder(out) as new:
        if (result / "adapter_config.json").is_file():
            facts = _write_from_adapter(result, new, form, base)
        else:
            facts = _write_whole(result, run, new, form)
        facts |= _with_template(run, folder, new)
        (new / "README.md").write_text(_card(facts, run, form, stated, _size(folder, run), scores), encoding="utf-8")
        if lineage is not None:
            write_lineage(new, unnamed(lineage), {name: told for name, told in stated.items() if name != ACCOUNTS})


def _lineage_of(result: Path) -> Lineage | None:
    """Return how a result was trained, with its base; None for a whole model from outside."""
    if (result / "adapter_config.json").is_file():
        return CausalLM.for_adapter(result).lineage()
    return read_lineage(result)


def _result_in(folder: Path) -> Path:
    for place in (folder, folder / "adapter"):
        if (place / "adapter_config.json").is_file() or (place / "model.safetensors").is_file():
            return place
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder; give a run directory or the folder of an adapter.")
    own = sorted(place.name for place in folder.glob("adapters/*") if place.is_dir())
    if own:
        raise MissingFileError(
            f"{folder}: holds no common result but one for each of {len(own)} clients; export one of them, "
            f"such as {folder / 'adapters' / own[0]}."
        )
    raise MissingFileError(f"{folder}: neither a run directory with a result nor an adapter; finish or resume the run.")


def _run_of(folder: Path) -> dict[str, Any]:
    found = _beside(folder, "run.toml")
    return with_plugins(modernised(read_toml(found)), found.parent) if found else {}


def _beside(folder: Path, name: str) -> Path | None:
    """Return the file of a run that lies in the folder or, if that is the `adapter` of a run, above it."""
    for place in (folder, folder.resolve().parent, folder.resolve().parent.parent):
        if (place / name).is_file():
            return place / name
    return None


def _with_template(run: Mapping[str, Any], folder: Path, new: Path) -> dict[str, str]:
    """Give the tokenizer the template that the run trained with, and return what the card says of it."""
    table = value_at(run, "task.template")
    if not isinstance(table, Mapping):
        return {}
    name, tokenizer, written = str(table.get("name")), Checkpoint("exported", new).tokenizer(), None
    with contextlib.suppress(FedloomError):  # a file of a template that is gone takes no weights with it
        written = build(_Templated, {"template": table}).template.jinja(tokenizer)
    if written is None:
        return {"Template": f"{name}; the tokenizer has no chat template that says the same"}
    (new / "chat_template.jinja").write_text(written, encoding="utf-8")
    return {"Template": f"{name}, as the tokenizer's chat template"}


@dataclass(frozen=True, kw_only=True)
class _Templated:
    template: Template


def _size(folder: Path, run: Mapping[str, Any]) -> dict[str, str]:
    """Return how many clients and examples there were; of a private run nothing is told that noise does not cover."""
    found = _beside(folder, "partition.json")
    if found is None or is_private(run):
        return {}
    card = RunDirectory(found.parent).table("partition.json")
    told = {"Clients": card.get("n_clients", 0), "Training examples": card.get("n_assigned", 0)}
    return {name: f"{count:,}" for name, count in told.items() if count}


def _write_from_adapter(result: Path, new: Path, form: Form, base: str) -> dict[str, str]:
    family = CausalLM.for_adapter(result)
    if form == "merged":
        family.write_merged(new)
    else:
        family.write_adapter(new, base=base)
    factors = {"Rank": str(family.lora_rank), "Alpha": f"{family.lora_alpha:g}"}
    return family.base_facts() | factors | {"Adapted layers": str(len(family.lora_targets))}


def _write_whole(result: Path, run: Mapping[str, Any], new: Path, form: Form) -> dict[str, str]:
    if form == "adapter":
        raise ModelError(f"{result}: holds a whole model and no adapter; export it with --merged.")
    shutil.copytree(result, new, dirs_exist_ok=True)
    path = run.get("model", {}).get("path")
    base = CausalLM(path=path).base_facts() if isinstance(path, str) else {"Base model": "not recorded"}
    return base | {"Trained": "all parameters"}


def _contradicts(folder: Path, run: Mapping[str, Any], result: Path, stated: Mapping[str, Any]) -> bool:
    """Return whether the records of the run around an adapter state another privacy than the adapter does."""
    where = _beside(folder, "run.toml")
    if where is None or not (where.parent / "ledger.jsonl").is_file():  # a run file that lies there by chance
        return False
    told = stated_privacy(RunDirectory.open(where.parent), run)
    return told != stated or (is_private(run) and read_lineage(result) in (None, (UNKNOWN,)))


def _card(
    facts: Mapping[str, str],
    run: Mapping[str, Any],
    form: Form,
    stated: Mapping[str, Any],
    size: Mapping[str, str],
    scores: Told,
) -> str:
    licence = facts.get("Licence of the base", "unknown: see the base model")
    training = {key: str(run[key]) for key in _RUN_KEYS if key in run}
    training |= {key: str(run[key]["name"]) for key in _RUN_TABLES if isinstance(run.get(key), Mapping)}
    training |= {name: value for name, value in size.items() if training}
    return text_template("fedloom.runs", "model_card.md.jinja").render(
        form=form,
        facts=dict(facts) | {"Licence of the base": licence},
        licence=licence,
        training=training,
        stated=stated,
        scores=scores,
        spent=spent_text(stated) if stated else "",
    )
