"""All clients train one model together, in rounds."""

from collections.abc import Mapping

from fedloom.contracts.federated import Shard
from fedloom.runs.legs import Leg
from fedloom.runs.tuning import TuningRun

__all__ = ["legs"]


def legs(run: TuningRun, shards: Mapping[str, Shard]) -> list[Leg]:
    """Return the one leg in which all clients take part."""
    return [Leg("", shards, run)]
