"""The upper baseline: the data of all clients in one place, trained with as many steps as all sampled clients take."""

from collections.abc import Mapping
from typing import Any, ClassVar

from fedloom.base.plugin import plugin
from fedloom.contracts.arrangement import Arrangement, Group
from fedloom.contracts.model import Shard

__all__ = ["Centralised"]


@plugin("centralised")
class Centralised(Arrangement):
    """One owner of all data."""

    baseline: ClassVar[bool] = True
    pooled: ClassVar[bool] = True

    def shared(self, pattern: str) -> str:
        """Return the pattern of all names: in one place nothing is kept apart."""
        return ".*"

    def groups(
        self, shards: Mapping[str, Shard], card: Mapping[str, Any], *, per_round: int, steps: int
    ) -> list[Group]:
        """Return the pooled data as one owner's."""
        kinds = [(item, at in shard.generated) for shard in shards.values() for at, item in enumerate(shard.items)]
        generated = frozenset(at for at, (_, made) in enumerate(kinds) if made)
        pooled = Shard(tuple(item for item, _ in kinds), generated=generated)
        return [Group("", {"pooled": pooled}, 1, steps * (per_round or len(shards)))]
