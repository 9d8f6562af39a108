"""What questioners share that show public seeds: so many of them in each request, every request with its own draw."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from fedloom.base.plugin import AtLeast
from fedloom.contracts.examples import Turn
from fedloom.contracts.synthesis import Ask, PoolRow, Questioner
from fedloom.synthesis.questioning import shown

__all__ = ["Showing"]


@dataclass(frozen=True, kw_only=True)
class Showing(Questioner):
    """Asks for one more after public seeds."""

    examples: AtLeast = 3
    """Seeds that each request shows."""

    @property
    def shows(self) -> int:
        """Seeds that it needs at least."""
        return self.examples

    def asks(self, seeds: Sequence[PoolRow], count: int, seed: int) -> list[Ask]:
        """Return as many requests, each with seeds of its own."""
        drawn = shown(seeds, self.examples, count, seed)
        return [Ask((Turn("user", self.text(rows).strip()),), rows) for rows in drawn]

    @abstractmethod
    def text(self, rows: Sequence[PoolRow]) -> str:
        """Return what is asked after these seeds."""
