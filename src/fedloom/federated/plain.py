"""A plan of parts that change nothing: the plain rule, the mean, steps of the whole change, rows as they are."""

from collections.abc import Sequence
from typing import Any

from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Aggregator, Codec, Mechanism, Plan, Rule, ServerOpt
from fedloom.contracts.local_settings import LocalSettings

__all__ = ["plain_plan"]


def plain_plan(
    clients: Sequence[str], local: LocalSettings, layout: Layout, *, rounds: int, seed: int = 0, **changes: Any
) -> Plan:
    """Return federated averaging of all clients, each counting alike, without noise; `changes` replace its fields."""
    parts: dict[str, Any] = {
        "rule": lookup(Rule, "plain")(),
        "server_opt": lookup(ServerOpt, "sgd")(),
        "aggregator": lookup(Aggregator, "mean")(),
        "codec": lookup(Codec, "float32")(),
        "mechanism": lookup(Mechanism, "none")(),
        "weighting": "uniform",
        "clients": tuple(clients),
        "clients_per_round": len(clients),
        "stream": seed,
    }
    return Plan(local=local, layout=layout, rounds=rounds, seed=seed, **(parts | changes))
