"""The lower baseline: every client trains alone on its own data, each of them, with as many rounds and steps.

A client trains in every round here, in a federated run only when it is sampled: where clients_per_round is below the
number of clients, the comparison favours this baseline.
"""

from collections.abc import Mapping

from fedloom.contracts import Shard
from fedloom.protocols.legs import Leg
from fedloom.protocols.tuning import TuningRun

__all__ = ["legs"]


def legs(run: TuningRun, shards: Mapping[str, Shard]) -> list[Leg]:
    """Return one leg per client."""
    return [Leg.alone(client, client, shard, run, steps=run.local.steps) for client, shard in shards.items()]
