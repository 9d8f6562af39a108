"""A model tuned at the server, by the very steps that clients take: one owner, no rule, no noise."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from fedloom.base.errors import DataError
from fedloom.base.mean import Mean
from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout, Tree, flatten
from fedloom.contracts.federated import (
    Aggregator,
    Codec,
    Engine,
    Mechanism,
    Plan,
    Rule,
    ServerOpt,
    Shard,
    Task,
    Work,
)
from fedloom.contracts.local_settings import LocalSettings
from fedloom.contracts.stages import Trained
from fedloom.federated.rounds import begin, train

__all__ = ["tuned"]

_OWNER = "server"


def tuned(
    trained: Trained, task: Task, items: Sequence[Any], local: LocalSettings, *, rounds: int, seed: int
) -> tuple[Tree, list[Mean]]:
    """Return the parameters after so many rounds of local steps on the task's items, and the training loss of each.

    Raises DataError where none of the items can be learnt from.
    """
    kept = tuple(item for item in items if task.targets(item))
    if not kept:
        raise DataError("refine: none of the pairs that are left can be learnt from; raise task.max_length.")
    plan = _plan(trained, replace(local, steps=_steps(local, len(kept), rounds), epochs=0.0), rounds, seed)
    work = Work(plan=plan, model=trained.model, task=task, shards={_OWNER: Shard(kept)}, private={})
    carrier = lookup(Engine, "sequential")().start(work)
    state, losses = begin(plan, flatten(trained.params).cpu()), list[Mean]()
    for done, record in train(plan, state, carrier):
        state = done
        losses.append(record.loss)
    return plan.layout.tree(state.params_P.to(trained.model.device)), losses


def _steps(local: LocalSettings, n_examples: int, rounds: int) -> int:
    return local.steps_of(n_examples, selections=Fraction(rounds))


def _plan(trained: Trained, local: LocalSettings, rounds: int, seed: int) -> Plan:
    return Plan(
        rule=lookup(Rule, "plain")(),
        server_opt=lookup(ServerOpt, "sgd")(),
        aggregator=lookup(Aggregator, "mean")(),
        codec=lookup(Codec, "float32")(),
        mechanism=lookup(Mechanism, "none")(),
        local=local,
        weighting="uniform",
        clients=(_OWNER,),
        clients_per_round=1,
        rounds=rounds,
        seed=seed,
        stream=seed,
        layout=Layout.of_tree(trained.params),
    )
