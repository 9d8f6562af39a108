"""The lower baseline: every client trains alone on its own data, each of them, with as many rounds and steps.

A client trains in every round here, in a federated run only when it is sampled: where clients_per_round is below the
number of clients, the comparison favours this baseline.
"""

from collections.abc import Mapping

from fedloom.contracts.federated import Shard
from fedloom.runs.legs import Leg
from fedloom.runs.tuning import TuningRun

__all__ = ["legs"]

_TOGETHER = 8  # clients of a leg: an engine may train them at once, and their models are held until it ends


def legs(run: TuningRun, shards: Mapping[str, Shard]) -> list[Leg]:
    """Return legs of a few clients each, in which everything trained is private."""
    clients = list(shards)
    groups = [clients[start : start + _TOGETHER] for start in range(0, len(clients), _TOGETHER)]
    return [
        Leg.baseline(f"{group[0]} to {group[-1]}", {c: shards[c] for c in group}, run, steps=run.local.steps)
        for group in groups
    ]
