"""Who takes part: the nodes of a federation by the names in their certificates, and whose data each holds.

    [nodes.north]
    clients = ["north"]
    max_weight = 5000        # the most that a client of it may count by

The order of the clients is that of the file: it is the order of the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedloom.base import config
from fedloom.base.errors import ConfigError
from fedloom.base.plugin import NonNegative, check_ranges

__all__ = ["Enrolment", "NodeEntry", "read_enrolment"]


@dataclass(frozen=True, kw_only=True)
class NodeEntry:
    """A node and whose data it holds."""

    clients: tuple[str, ...]
    """Names of the clients whose data it holds."""
    max_weight: NonNegative = 0.0
    """The most that a client of it may count by; 0: whatever it says."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.clients:
            raise ConfigError("clients: found none, a node holds the data of at least one.")


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """All nodes of a federation."""

    nodes: Mapping[str, NodeEntry]
    """The nodes, by the names in their certificates."""

    def __post_init__(self) -> None:
        if not self.nodes:
            raise ConfigError("nodes: found none; name each node and its clients.")
        names = list(self.clients)
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ConfigError(f"nodes: client '{twice[0]}' is found twice, each belongs to one node.")

    @property
    def clients(self) -> tuple[str, ...]:
        """All clients, in their order."""
        return tuple(client for node in self.nodes.values() for client in node.clients)

    @property
    def nodes_by_client(self) -> dict[str, str]:
        """The node of each client, in the clients' order."""
        return {client: name for name, node in self.nodes.items() for client in node.clients}

    def of_client(self, client: str) -> tuple[str, NodeEntry]:
        """Return the node that holds a client's data."""
        return next((name, node) for name, node in self.nodes.items() if client in node.clients)


def read_enrolment(path: Path) -> Enrolment:
    """Return the enrolment in a TOML file."""
    return config.build(Enrolment, config.read_toml(path))
