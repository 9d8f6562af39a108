"""Which clients a simulation takes for attackers: drawn by name, so that whoever has the settings draws the same."""

import math
from collections.abc import Sequence

from fedloom.base import rng
from fedloom.base.errors import ConfigError

__all__ = ["drawn_attackers"]


def drawn_attackers(population: Sequence[str], clients: float, seed: int) -> tuple[str, ...]:
    """Return the attackers among all clients, in their order.

    From 1 on `clients` is their number, below 1 their share: the nearest number, halves up, and at least 1. The draw
    does not depend on the order of the clients. Raises ConfigError for no clients, half a client, or more than there
    are.
    """
    if not clients > 0 or (clients >= 1 and clients != int(clients)):
        raise ConfigError(
            f"clients: found {clients:g} attackers; allowed is a whole number from 1 on, or a share between 0 and 1."
        )
    count = int(clients) if clients >= 1 else max(1, math.floor(clients * len(population) + 0.5))
    if count > len(population):
        raise ConfigError(f"clients: found {count} attackers among {len(population)} clients: ask for no more of them.")
    drawn = {*rng.python_random("attackers", seed).sample(sorted(population), count)}
    return tuple(client for client in population if client in drawn)
