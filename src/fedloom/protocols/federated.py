"""All clients train one model together, in rounds."""

from collections.abc import Mapping

from fedloom.contracts import Shard
from fedloom.protocols.legs import Leg
from fedloom.protocols.tuning import TuningRun

__all__ = ["legs"]


def legs(run: TuningRun, shards: Mapping[str, Shard]) -> list[Leg]:
    """Return the one leg in which all clients take part."""
    return [Leg("", shards, run)]
