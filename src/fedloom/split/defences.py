"""What a client of a split model does to what leaves it: 5.5 of the specification, each off by default.

    noise     Gaussian on states and gradients, over their root mean square: empirical (`noise.py`)
    nopeek    a penalty on what the states that leave have in common with the embeddings (`nopeek.py`)
    bucket    texts as long as a multiple of so many tokens (`buckets.py`)
    guard     fake steps, by whose answers a server is found out that trains something else (`guard.py`)

None of them is a guarantee; what they cost and what they help is measured by `fedloom split audit` on one's own
model.

Deviations: none; each file says its own.
"""

from dataclasses import dataclass, field

from fedloom.split.noise import Noise

__all__ = ["Defences", "Shield"]


@dataclass(frozen=True, kw_only=True)
class Defences:
    """Which defences a run has, and how strong."""

    noise: float = 0.0
    """Standard deviation over the root mean square of the rows."""
    bucket: int = 0
    """Tokens of which lengths are multiples."""

    @property
    def drawn(self) -> bool:
        """Whether anything is drawn that the server must not be able to draw again."""
        return bool(self.noise)


@dataclass
class Shield:
    """The defences of the clients of one place in one round, with what they remember of it."""

    defences: Defences = field(default_factory=Defences)
    whose: tuple[str | int, ...] = ()
    """What names the draws of the round: a secret or the run's seed, then the round."""

    def __post_init__(self) -> None:
        self.noise = Noise(self.defences.noise, self.whose)
