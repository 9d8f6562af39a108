"""Stages: a tuning run is one training after another, each with its plan and what carries it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

from torch import Tensor

from fedloom.base.tree import Layout, Tree
from fedloom.contracts.arrangement import Group
from fedloom.contracts.federated import Model, Plan, PrivacyBudget, Server, Shard, Work
from fedloom.contracts.lineage import Lineage
from fedloom.runs.tuning import TuningRun

__all__ = ["Loaded", "Stage", "stage_of"]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The model that a run starts from, and what of it is shared."""

    model: Model
    layout: Layout
    shared: Tree
    private: Tree
    middle: Tree = field(default_factory=dict[str, Tensor])
    """What the server trains itself, of a split model."""
    lineage: Lineage
    """How the weights that the run starts from were trained."""
    start: str
    """A hash of those weights and their lineage; "" where they have none."""


@dataclass(frozen=True)
class Stage:
    """One training from the initial parameters."""

    name: str
    """What tells it from the run's other stages; "" if there is one."""
    owner: str
    """Whose the trained model is; "" for one that all clients share, or for one each."""
    work: Work

    @property
    def plan(self) -> Plan:
        """What server and clients agree on."""
        return self.work.plan

    @cached_property
    def server(self) -> Server | None:
        """What the server has besides rows, where the aggregator needs it; made ready once, or refused."""
        work, local, aggregator = self.work, self.plan.local, self.plan.aggregator
        if not aggregator.looks:
            return None
        return Server(work.model, work.task, local, local.lr, aggregator.ready(work.model, work.task))


def stage_of(
    run: TuningRun,
    group: Group,
    loaded: Loaded,
    budgets: Mapping[str, PrivacyBudget],
    clients: Sequence[str] = (),
    poisoned: Mapping[str, Shard] | None = None,
) -> Stage:
    """Return the training of a group of owners; `clients` names all of them where not all shards are at hand.

    `poisoned` is what malicious clients train on.
    """
    clients = tuple(clients or group.shards)
    needed = group.per_round or len(clients)
    per_round = run.asked_per_round(len(clients), needed)
    plan = Plan(
        rule=run.rule,
        server_opt=run.server_opt,
        aggregator=run.aggregator,
        codec=run.codec,
        mechanism=run.privacy,
        local=replace(run.local, steps=group.steps),
        weighting=run.weighting,
        max_weight=run.max_weight,
        clients=clients,
        clients_per_round=per_round,
        min_clients=run.min_clients or (needed if per_round > needed else 0),
        enough=needed,
        rounds=run.rounds,
        seed=run.seed,
        budgets=budgets,
        layout=loaded.layout,
        ranks={client: run.ranks[at % len(run.ranks)] for at, client in enumerate(clients)} if run.ranks else {},
        steps=_steps(run, group, Fraction(run.rounds * per_round, len(clients))),
        # The same noise in two runs would fall out of the difference of what they release.
        stream=f"{run.seed} from {loaded.start}" if loaded.start else run.seed,
    )
    own = {client: shard for client, shard in (poisoned or {}).items() if client in group.shards}
    work = Work(
        plan=plan,
        model=loaded.model,
        task=run.task,
        shards=group.shards,
        private=loaded.private,
        middle=loaded.middle,
        attack=run.attack,
        poisoned=own,
    )
    return Stage(group.name, group.owner, work)


def _steps(run: TuningRun, group: Group, selections: Fraction) -> dict[str, int]:
    """Return the clients' steps in a round, of so many in which each is expected; empty where all take as many."""
    local = replace(run.local, steps=group.steps)
    if local.match_exposure:
        sizes = {client: len(shard.items) for client, shard in group.shards.items()}
        own = {client: sizes[client] - len(shard.generated) for client, shard in group.shards.items()}
        return {client: local.steps_matching(n, own[client]) for client, n in sizes.items()}
    if not local.epochs:
        return {}
    return {client: local.steps_of(len(shard.items), selections=selections) for client, shard in group.shards.items()}
