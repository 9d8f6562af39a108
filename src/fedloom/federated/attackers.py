"""Who is malicious in a simulation: drawn by a seed, so that only who knows the settings of an attack knows it."""

from collections.abc import Sequence

from fedloom.base import rng
from fedloom.base.errors import ConfigError

__all__ = ["drawn_attackers"]


def drawn_attackers(population: Sequence[str], clients: float, seed: int) -> tuple[str, ...]:
    """Return the malicious ones of a population, in its order: `clients` of them, or that share where it is below 1.

    A share is rounded to the nearest number, 1 at least. Raises ConfigError for more than there are, and for a number
    that is not whole.
    """
    count = clients if clients >= 1 else max(1, round(clients * len(population)))
    if count != int(count) or count > len(population):
        raise ConfigError(
            f"attack.clients: found {clients:g}, allowed is a whole number up to the {len(population)} clients there "
            "are, or a share below 1."
        )
    drawn = set(rng.python_random("attackers", seed).sample(sorted(population), int(count)))
    return tuple(client for client in population if client in drawn)
