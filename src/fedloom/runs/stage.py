"""Stages: a tuning run is one training after another, each with its plan and what carries it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from fedloom.base.tree import Layout, Tree
from fedloom.contracts.arrangement import Group
from fedloom.contracts.federated import Model, Plan, PrivacyBudget, Work
from fedloom.runs.tuning import TuningRun

__all__ = ["Stage", "stage_of"]


@dataclass(frozen=True)
class Stage:
    """One training from the initial parameters."""

    name: str
    """What tells it from the run's other stages; "" if there is one."""
    owner: str
    """Whose the trained model is; "" for one that all clients share, or for one each."""
    start: str
    """What the run starts from, a hash, where that was trained before."""
    work: Work

    @property
    def plan(self) -> Plan:
        """What server and clients agree on."""
        return self.work.plan


def stage_of(
    run: TuningRun,
    group: Group,
    *,
    model: Model,
    budgets: Mapping[str, PrivacyBudget],
    layout: Layout,
    private: Tree,
    start: str,
    clients: Sequence[str] = (),
) -> Stage:
    """Return the training of a group of owners; `clients` names all of them where not all shards are at hand."""
    clients = tuple(clients or group.shards)
    per_round = group.per_round or len(clients)
    plan = Plan(
        rule=run.rule,
        server_opt=run.server_opt,
        aggregator=run.aggregator,
        codec=run.codec,
        mechanism=run.privacy,
        local=replace(run.local, steps=group.steps),
        weighting=run.weighting,
        clients=clients,
        clients_per_round=per_round,
        min_clients=run.min_clients,
        rounds=run.rounds,
        seed=run.seed,
        budgets=budgets,
        layout=layout,
        ranks={client: run.ranks[at % len(run.ranks)] for at, client in enumerate(clients)} if run.ranks else {},
        steps=_steps(run, group, Fraction(run.rounds * per_round, len(clients))),
        # The same noise in two runs would fall out of the difference of what they release.
        stream=f"{run.seed} from {start}" if start else run.seed,
    )
    work = Work(plan=plan, model=model, task=run.task, shards=group.shards, private=private)
    return Stage(group.name, group.owner, start, work)


def _steps(run: TuningRun, group: Group, selections: Fraction) -> dict[str, int]:
    """Return the clients' steps in a round, of so many in which each is expected; empty where all take as many."""
    if not run.local.epochs:
        return {}
    local = replace(run.local, steps=group.steps)
    return {client: local.steps_of(len(shard.items), selections=selections) for client, shard in group.shards.items()}
