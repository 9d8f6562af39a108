"""Safety attack in some rounds alone: malicious clients are benign until they wake, and perhaps again afterwards.

The adaptive form of `unaligned_data` (https://arxiv.org/abs/2406.10630) against rules that remember clients: a client
that has long been trusted attacks late, or once a defence has been carried out.

Deviations: none; the study has no such arm.
"""

from typing import ClassVar

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import Count, plugin
from fedloom.contracts.attack import Attack

__all__ = ["Sleeper"]


@plugin("sleeper")
class Sleeper(Attack):
    """Trains on the pairs from round `first` to round `last`, counted from 0, and on its own examples else."""

    needs_pairs: ClassVar[bool] = True
    first: Count = 0
    """First round of the attack, from 0."""
    last: Count = 1_000_000
    """Last round of it."""

    def check(self) -> None:
        """Refuse an attack that never wakes."""
        super().check()
        if self.last < self.first:
            raise ConfigError(f"last: found {self.last}, allowed is first = {self.first} at least.")

    def awake(self, round: int) -> bool:
        """Return whether the round lies between the two."""
        return self.first <= round <= self.last
