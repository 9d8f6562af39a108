"""Clients that are alike train together: one federation per cluster, none of which sees another's rows.

The clusters are given, not learnt: a client belongs to the most frequent value of a tag in its records, of equal ones
to the first in the alphabet, and values may be put together (`clusters`), as languages of one family. The tag `client`
groups clients by name, where each is called by the value of its records, as `by_key` calls them. Federation by
similar language is one of the settings of FedLLM-Bench (arXiv:2406.04845, section 4). With one cluster this is
`federated`; with a cluster per client every client trains alone.

Deviations: the clients sampled in a round are shared out over the clusters by their numbers of clients, at least one
each, so that all clusters together train about as many clients as one federation would.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from fedloom.base.errors import DataError
from fedloom.base.plugin import plugin
from fedloom.contracts.arrangement import Arrangement, Group
from fedloom.contracts.model import Shard
from fedloom.data.card import most_frequent_value

__all__ = ["Clustered", "most_frequent"]


@plugin("clustered")
class Clustered(Arrangement):
    """A federation for each cluster, which owns its model."""

    by: str = "language"
    """Tag whose most frequent value is a client's cluster."""
    clusters: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Values of that tag by the cluster they form; empty: each value is one."""

    def label(self) -> str:
        """Return by what clients are clustered."""
        return f"clustered by {self.by}" + f" ({', '.join(self.clusters)})" * bool(self.clusters)

    def groups(
        self, shards: Mapping[str, Shard], card: Mapping[str, Any], *, per_round: int, steps: int
    ) -> list[Group]:
        """Return the clusters."""
        return [
            Group(
                name,
                {client: shards[client] for client in clients},
                _share(per_round, len(clients), len(shards)),
                steps,
                owner=name,
            )
            for name, clients in self.clients(card).items()
        ]

    def clients(self, card: Mapping[str, Any]) -> dict[str, list[str]]:
        """Return the clients of each cluster, both in the order of the clients, from the partition's card."""
        values = most_frequent(card, self.by)
        found: dict[str, list[str]] = {}
        for client in card["counts"]:
            if client not in values:
                raise DataError(
                    f"client '{client}': none of its records has the tag '{self.by}'; {_advice_for(self.by)}."
                )
            found.setdefault(_cluster_of(values[client], self.clusters), []).append(client)
        return found


def _share(per_round: int, n_clients: int, n_all: int) -> int:
    return per_round and max(1, round(per_round * n_clients / n_all))


def _cluster_of(value: str, clusters: Mapping[str, Sequence[str]]) -> str:
    """Return the cluster of a value of the tag: the one that lists it, or, where none are given, the value itself."""
    if not clusters:
        return value
    holding = [name for name, values in clusters.items() if value in values]
    if len(holding) != 1:
        raise DataError(f"clusters: '{value}' is listed {len(holding)} times, allowed is once; {_advice(clusters)}")
    return holding[0]


def _advice(clusters: Mapping[str, Sequence[str]]) -> str:
    listed = sorted(value for values in clusters.values() for value in values)
    return f"list every value of protocol.by; listed: {', '.join(listed)}."


def _advice_for(tag: str) -> str:
    """Return how records come by a tag; a source of fixed layouts has no `tags`."""
    bench = "by a field `language` of its records, or by `languages_path`" if tag == "language" else "has no such tag"
    return f"the sources file, hub and preset set it by `tags`, fedllm_bench {bench}"


def most_frequent(card: Mapping[str, Any], tag: str) -> dict[str, str]:
    """Return the most frequent value of a tag among each client's records, of equal ones the first in the alphabet."""
    table = card["tags"].get(tag, {})
    if "most_frequent" in table:
        return dict(table["most_frequent"])
    if not table:
        raise DataError(
            f"protocol.by: no groups by the tag '{tag}', present: {', '.join(sorted(card['tags'])) or 'none'}; "
            f"{_advice_for(tag)}."
        )
    if "by_client" not in table:
        raise DataError(
            f"protocol.by: no groups by the tag '{tag}', it has {table['n_values']} values; allowed is a tag of "
            "records with at most 32 values, the language, or the client that a record belongs to."
        )
    return {client: most_frequent_value(counts) for client, counts in table["by_client"].items()}
