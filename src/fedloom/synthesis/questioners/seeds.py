"""The public seeds themselves, without a model: what the trained model's questions are worth is told against it."""

from collections.abc import Sequence

from fedloom.base import rng
from fedloom.base.errors import ConfigError
from fedloom.base.plugin import plugin
from fedloom.contracts.synthesis import Ask, PoolRow, Questioner

__all__ = ["Seeds"]


@plugin("seeds")
class Seeds(Questioner):
    """Takes the seeds' instructions, each once, in an order drawn."""

    @property
    def shows(self) -> int:
        """Seeds that it needs at least."""
        return 1

    def asks(self, seeds: Sequence[PoolRow], count: int, seed: int) -> list[Ask]:
        """Return instructions as they stand; more than there are seeds are refused."""
        if count > len(seeds):
            raise ConfigError(f"questions: found {count}, the seeds have {len(seeds)}; ask for fewer, or add seeds.")
        drawn = rng.python_random(seed, "seeds").sample(range(len(seeds)), count)
        return [Ask((), text=seeds[row].instruction) for row in drawn]

    def read(self, text: str) -> tuple[str, str]:
        """Return the question, and no response."""
        return text.strip(), ""
