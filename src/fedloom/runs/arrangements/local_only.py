"""The lower baseline: every client trains alone on its own data, each of them, with as many rounds and steps.

A client trains in every round here, in a federated run only when it is sampled: where clients_per_round is below the
number of clients, the comparison favours this baseline.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from fedloom.base.plugin import plugin
from fedloom.contracts.arrangement import Arrangement, Group
from fedloom.contracts.model import Shard

__all__ = ["LocalOnly"]

_TOGETHER = 8  # clients of a group: an engine may train them at once, and their models are held until it ends


@plugin("local_only")
class LocalOnly(Arrangement):
    """A model of its own for every client."""

    baseline: ClassVar[bool] = True

    def shared(self, pattern: str) -> str:
        """Return the pattern of no name: alone everything is one's own."""
        return "(?!)"

    def groups(
        self, shards: Mapping[str, Shard], card: Mapping[str, Any], *, per_round: int, steps: int
    ) -> list[Group]:
        """Return groups of a few clients each, in which everything trained is private."""
        clients = list(shards)
        groups = [clients[start : start + _TOGETHER] for start in range(0, len(clients), _TOGETHER)]
        return [
            Group(f"{group[0]} to {group[-1]}", {c: shards[c] for c in group}, len(group), steps) for group in groups
        ]
