"""Legs: a tuning run is one training after another, and the protocols differ in which ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from fedloom.base.tree import Layout
from fedloom.contracts.federated import Guard, Shard
from fedloom.runs.tuning import TuningRun

__all__ = ["Leg"]


@dataclass(frozen=True)
class Leg:
    """One training from the initial parameters: who takes part, with which data and settings."""

    name: str
    """What tells it from the run's other legs; "" if there is one."""
    shards: Mapping[str, Shard]
    run: TuningRun
    guards: Mapping[str, Guard] = field(default_factory=dict[str, Guard])
    """What protects each client's data."""
    layout: Layout = field(default_factory=lambda: Layout(()))
    """The shared parameters."""
    start: str = ""
    """What the run starts from, a hash, where that was trained before."""
    owner: str = ""
    """Whose the trained model is; "" for one that all clients share."""

    @property
    def clients(self) -> tuple[str, ...]:
        """The clients, in their order."""
        return tuple(self.shards)

    @property
    def per_round(self) -> int:
        """Clients sampled in a round."""
        return self.run.clients_per_round or len(self.shards)

    @property
    def ranks(self) -> dict[str, int]:
        """The clients' ranks; empty where all have the model's."""
        ranks = self.run.ranks
        return {client: ranks[i % len(ranks)] for i, client in enumerate(self.clients)} if ranks else {}

    @property
    def steps(self) -> dict[str, int]:
        """The clients' steps in a round; empty where all take as many."""
        local = self.run.local
        selections = Fraction(self.run.rounds * self.per_round, len(self.shards))
        counts = {client: len(shard.items) for client, shard in self.shards.items()}
        return {c: local.steps_of(n, selections=selections) for c, n in counts.items()} if local.epochs else {}

    @classmethod
    def baseline(cls, name: str, shards: Mapping[str, Shard], run: TuningRun, *, steps: int) -> "Leg":
        """Return the leg of owners who send nothing to each other, each taking `steps` in a round."""
        n, local = len(shards), replace(run.local, steps=steps)
        return cls(name, shards, replace(run.as_baseline(), local=local, clients=n, clients_per_round=n))
