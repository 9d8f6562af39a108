"""The upper baseline: the data of all clients in one place, trained with as many steps as all sampled clients take."""

from collections.abc import Mapping

from fedloom.contracts.federated import Shard
from fedloom.data.clients import pooled
from fedloom.runs.legs import Leg
from fedloom.runs.tuning import TuningRun

__all__ = ["legs"]


def legs(run: TuningRun, shards: Mapping[str, Shard]) -> list[Leg]:
    """Return the one leg of the pooled data."""
    steps = run.local.steps * (run.clients_per_round or len(shards))
    return [Leg.baseline("", {"pooled": pooled(shards)}, run, steps=steps)]
