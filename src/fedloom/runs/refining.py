"""The trained model through the run's refinements, at the server, between rounds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from fedloom.base.errors import ModelError
from fedloom.base.files import disk_errors, file_name
from fedloom.base.tree import Tree, flatten
from fedloom.contracts.stages import Trained
from fedloom.federated.rounds import State, ended
from fedloom.runs.directory import RunDirectory
from fedloom.runs.prepared import Prepared
from fedloom.runs.stage import Stage

__all__ = ["Told", "is_due", "refined"]

Told = Sequence[tuple[str, Mapping[str, float]]]
"""By refinement what it told of itself."""


def is_due(ready: Prepared, stage: Stage, state: State) -> bool:
    """Return whether the model is refined after the round that led to this state; baselines have no server."""
    every = ready.run.refine_every
    if not ready.run.refine or ready.run.protocol.baseline:
        return False
    return ended(stage.plan, state) or bool(every and state.round % every == 0)


def refined(ready: Prepared, stage: Stage, state: State, directory: RunDirectory) -> tuple[State, Told]:
    """Return the state with the refined parameters, and by refinement what it told of itself.

    Raises ModelError for parameters of other names or shapes, or that are not finite.
    """
    told: list[tuple[str, Mapping[str, float]]] = []
    params = ready.layout.tree(state.params_P.to(ready.model.device))
    for at, refinement in enumerate(ready.run.refine):
        name = f"{stage.name or 'shared'}_{state.round:05d}_{at}_{refinement.name}"
        folder = directory.path / "refined" / file_name(name)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        done = refinement(Trained(ready.model, ready.run.task, params, state.round, ready.run.seed, folder))
        _check(refinement.name, params, done.params)
        params = {key: done.params[key] for key in params}
        told.append((refinement.name, done.counts))
    return replace(state, params_P=flatten(params).cpu()), told


def _check(name: str, before: Tree, after: Tree) -> None:
    shapes = [{key: tuple(tensor.shape) for key, tensor in tree.items()} for tree in (before, after)]
    if shapes[0] != shapes[1]:
        odd = sorted(key for key in shapes[0].keys() | shapes[1].keys() if shapes[0].get(key) != shapes[1].get(key))
        raise ModelError(f"refine: '{name}' returned other names or shapes of {', '.join(odd)}; allowed are the same.")
    broken = sorted(key for key, tensor in after.items() if not bool(torch.isfinite(tensor).all()))
    if broken:
        raise ModelError(f"refine: '{name}' returned NaN or infinity in {', '.join(broken)}; allowed is finite.")
