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

import torch
from torch import Tensor

from fedloom.base.errors import TrainingError
from fedloom.base.rng import generator, python_random
from fedloom.base.tree import Slots
from fedloom.split.guard import Guard
from fedloom.split.messages import Message
from fedloom.split.noise import Noise

__all__ = ["Defences", "Shield"]

LEAST_FAKES, LEAST_SCORE = 5, 0.95
"""Fake steps before a server is judged, and the score below which it is one that trains something else."""
_SLOT = "guard"


@dataclass(frozen=True, kw_only=True)
class Defences:
    """Which defences a run has, and how strong."""

    noise: float = 0.0
    """Standard deviation over the root mean square of the rows."""
    nopeek: float = 0.0
    """Weight of the penalty beside the mean loss."""
    bucket: int = 0
    """Tokens of which lengths are multiples."""
    guard: float = 0.0
    """Probability of a fake step."""

    @property
    def drawn(self) -> bool:
        """Whether anything is drawn that the server must not be able to draw again."""
        return bool(self.noise or self.guard)


@dataclass
class Shield:
    """The defences of the clients of one place in one round, with what they remember of it."""

    defences: Defences = field(default_factory=Defences)
    whose: tuple[str | int, ...] = ()
    """What names the draws of the round: a secret or the run's seed, then the round."""

    guards: dict[str, Guard] = field(default_factory=dict[str, Guard])
    """What came of fake steps so far, by client."""

    def __post_init__(self) -> None:
        self.noise = Noise(self.defences.noise, self.whose)

    def remember(self, client: str, memory: Slots) -> None:
        """Take up what a client keeps of earlier rounds."""
        if self.defences.guard:
            self.guards[client] = Guard.of(memory.get(_SLOT, {}))

    def kept(self, client: str) -> Slots:
        """Return what a client keeps for later rounds."""
        return {_SLOT: self.guards[client].kept()} if self.defences.guard else {}

    def fake(self, client: str, step: int, micro: int) -> bool:
        """Return whether a client asks for the gradient of random targets."""
        draw = python_random(*self.whose, client, step, micro, "fake")
        return bool(self.defences.guard) and draw.random() < self.defences.guard

    def targets(self, client: str, step: int, micro: int, count: int, n_words: int) -> Tensor:
        """Return random targets [count] of a fake step."""
        draw = generator(*self.whose, client, step, micro, "targets")
        return torch.randint(n_words, (count,), generator=draw)

    def look(self, answer: Message, slope_ND: Tensor, weight: float) -> None:
        """Count what a BACK says [N, D]; TrainingError where it is not what an honest server sends."""
        if not self.defences.guard:
            return
        guard, fake = (
            self.guards.setdefault(answer.client, Guard()),
            self.fake(answer.client, answer.step, answer.micro),
        )
        closed = guard.add(slope_ND, weight, fake=fake)
        if closed and guard.fakes >= LEAST_FAKES and (score := guard.score()) < LEAST_SCORE:
            raise TrainingError(
                f"{answer.where}: after {guard.fakes} fake steps the score of what the server sends is {score:.3f}, "
                f"allowed is {LEAST_SCORE} at least: its gradients do not depend on the targets; ask who runs it, and "
                "train no further with it."
            )
