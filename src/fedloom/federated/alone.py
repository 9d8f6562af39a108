"""Models tuned outside the federation by the very steps that clients take: no rule, no noise, nobody else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from torch import Tensor

from fedloom.base.errors import DataError
from fedloom.base.mean import Mean
from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout, Tree, flatten
from fedloom.contracts.federated import (
    Engine,
    Job,
    Local,
    Model,
    Shard,
    Task,
    Work,
)
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.plain import plain_plan
from fedloom.federated.rounds import begin, train

__all__ = ["tuned_alone", "tuned_apart"]

_OWNER = "server"


def tuned_alone(
    model: Model,
    task: Task,
    params: Tree,
    items: Sequence[Any],
    local: LocalSettings,
    *,
    rounds: int,
    seed: int,
    worth: Callable[[Tree], tuple[float, ...]] | None = None,
) -> tuple[Tree, list[Mean]]:
    """Return the parameters after so many rounds of local steps on the task's items, and the training loss of each.

    With `worth` those of the round that is worth most are returned, the first of equal ones. Raises DataError where
    none of the items can be learnt from.
    """
    kept = tuple(item for item in items if task.targets(item))
    if not kept:
        raise DataError("server: none of the pairs that it has can be learnt from; raise task.max_length.")
    steps = local.steps_of(len(kept), selections=Fraction(rounds))
    layout, own = Layout.of_tree(params), replace(local, steps=steps, epochs=0.0)
    plan = plain_plan((_OWNER,), own, layout, rounds=rounds, seed=seed)
    work = Work(plan=plan, model=model, task=task, shards={_OWNER: Shard(kept)}, private={})
    carrier = lookup(Engine, "sequential")().start(work)
    start_P, losses, best = flatten(params).cpu(), list[Mean](), tuple[float, ...]()
    chosen_P: Tensor = start_P
    for state, record in train(plan, begin(plan, start_P), carrier):
        losses.append(record.loss)
        found = worth(plan.layout.tree(state.params_P.to(model.device))) if worth else (float(state.round),)
        if found > best:
            chosen_P, best = state.params_P, found
    return plan.layout.tree(chosen_P.to(model.device)), losses


def tuned_apart(
    model: Model, task: Task, params: Tree, items: Mapping[str, Sequence[Any]], local: LocalSettings, *, seed: int
) -> dict[str, Tree]:
    """Return what becomes of the parameters at each of several owners by its own items, in one round of `local.steps`.

    The owners are trained side by side as far as the model allows.
    """
    plan = plain_plan(tuple(items), local, Layout.of_tree(params), rounds=1, seed=seed)
    shards = {name: Shard(tuple(owned)) for name, owned in items.items()}
    work = Work(plan=plan, model=model, task=task, shards=shards, private={})
    engine = lookup(Engine, "cohort")().resolved(work, n_clients=len(items))
    start_P, found = flatten(params).cpu(), dict[str, Tree]()
    start = begin(plan, start_P)
    jobs = [Job(name, 0, local.lr, Local({"": start_P}, start.shared, {}), 0) for name in items]
    for report in engine.start(work)(jobs):
        # A row is what was added to where the owner began.
        row_P = start_P + plan.codec.decode(report.packet, report.layout.size)
        found[report.client] = plan.layout.tree(row_P.to(model.device))
    return found
