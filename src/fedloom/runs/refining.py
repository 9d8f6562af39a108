"""The trained model through the run's refinements, at the server, between rounds."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fedloom.base.errors import ModelError, RunError
from fedloom.base.files import disk_errors, file_name, json_sha256, write_atomic
from fedloom.base.tree import Tree, flatten
from fedloom.contracts.stages import Refined, Refinement, Trained
from fedloom.federated.rounds import State, ended
from fedloom.runs.directory import RunDirectory
from fedloom.runs.measure import hashed
from fedloom.runs.prepared import Prepared
from fedloom.runs.stage import Stage
from fedloom.runs.tuning import pinned

__all__ = ["Told", "hide_texts", "is_due", "refined"]

Told = Sequence[tuple[str, Refined]]
"""What each refinement did, by its name."""


def is_due(ready: Prepared, stage: Stage, state: State) -> bool:
    """Return whether the model is refined after the round that led to this state; baselines have no server."""
    every = ready.run.refine_every
    if not ready.run.refine or ready.run.protocol.baseline:
        return False
    return ended(stage.plan, state) or bool(every and state.round % every == 0)


def refined(ready: Prepared, stage: Stage, state: State, directory: RunDirectory) -> tuple[State, Told]:
    """Return the state with the refined parameters, and what each refinement did.

    Raises ModelError for parameters of other names or shapes, or that are not finite, and RunError where what a stopped
    refinement left was made of something else.
    """
    told: list[tuple[str, Refined]] = []
    params = ready.layout.tree(state.params_P.to(ready.model.device))
    for at, refinement in enumerate(ready.run.refine):
        name = f"{stage.name or 'shared'}_{state.round:05d}_{at}_{refinement.name}"
        folder = directory.path / "refined" / file_name(name)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700 if ready.run.of_real_harm else 0o777)
        _pin(folder, refinement, params, ready.run.seed)
        trained = Trained(
            ready.model, ready.run.task, params, state.round, ready.run.seed, folder, ready.division.public
        )
        done = refinement(trained)
        _check(refinement.name, params, done.params)
        params = {key: done.params[key] for key in params}
        told.append((refinement.name, done))
    return replace(state, params_P=flatten(params).cpu()), told


def hide_texts(ready: Prepared, directory: RunDirectory) -> None:
    """Leave no text of what refinements asked and were answered, at a run's end, where the run keeps none.

    Pairs stay, with hashes for texts; what was only there to ask nothing twice goes.
    """
    for folder in sorted((directory.path / "refined").glob("*")) if not ready.run.keeps_text else ():
        for file in sorted(folder.glob("*.jsonl")):
            if file.name != "pairs.jsonl":
                file.unlink()
                continue
            lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            write_atomic(file, "".join(json.dumps(_hidden(line), ensure_ascii=False) + "\n" for line in lines))


def _hidden(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: hashed(text) if name in ("instruction", "response") else text for name, text in line.items()}


def _pin(folder: Path, refinement: Refinement, params: Tree, seed: int) -> None:
    """Write down what a refinement starts from; another start than that of what lies there is refused."""
    state = hashlib.sha256(flatten(params).cpu().numpy().tobytes()).hexdigest()
    of = json_sha256([pinned(refinement), refinement.identity(), seed, state])
    file = folder / "of.json"
    if not file.is_file():
        write_atomic(file, json.dumps({"of": of}))
    elif file.read_text(encoding="utf-8") != json.dumps({"of": of}):
        raise RunError(
            f"{folder}: what lies here was made of another model, or by other files or prompts; restore them, or "
            "delete the folder to have it made again."
        )


def _check(name: str, before: Tree, after: Tree) -> None:
    shapes = [{key: tuple(tensor.shape) for key, tensor in tree.items()} for tree in (before, after)]
    if shapes[0] != shapes[1]:
        odd = sorted(key for key in shapes[0].keys() | shapes[1].keys() if shapes[0].get(key) != shapes[1].get(key))
        raise ModelError(f"refine: '{name}' returned other names or shapes of {', '.join(odd)}; allowed are the same.")
    broken = sorted(key for key, tensor in after.items() if not bool(torch.isfinite(tensor).all()))
    if broken:
        raise ModelError(f"refine: '{name}' returned NaN or infinity in {', '.join(broken)}; allowed is finite.")
