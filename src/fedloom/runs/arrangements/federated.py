"""All clients train one model together, in rounds."""

from collections.abc import Mapping
from typing import Any, ClassVar

from fedloom.base.plugin import plugin
from fedloom.contracts.arrangement import Arrangement, Group
from fedloom.contracts.model import Shard

__all__ = ["Federated"]


@plugin("federated")
class Federated(Arrangement):
    """One training in which all clients take part."""

    accounted: ClassVar[bool] = True

    def groups(
        self, shards: Mapping[str, Shard], card: Mapping[str, Any], *, per_round: int, steps: int
    ) -> list[Group]:
        """Return all clients."""
        return [Group("", shards, per_round, steps)]
