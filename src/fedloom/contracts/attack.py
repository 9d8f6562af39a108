"""The contract of attacks: what malicious clients of a simulation do, given only what a client may know.

Shape letters as in `contracts`: P numbers in a row, C clients whose training is repeated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from fedloom.base import rng
from fedloom.base.errors import ConfigError
from fedloom.base.plugin import Count, Family, Positive
from fedloom.contracts.data import Source
from fedloom.contracts.examples import Example

__all__ = ["Attack", "Moment"]


@dataclass(frozen=True)
class Moment:
    """What a malicious client knows when it is about to send its row."""

    client: str
    seed: int
    """The attack's: draws are named by it, the round and the client."""
    round: int
    rows_CP: Tensor
    """What the training of those that it repeats came to, float32 on the CPU; its own where it repeats no other's."""

    def noise(self, name: str) -> Tensor:
        """Return standard normal numbers [P], the client's own for this round and name."""
        row_P = self.rows_CP[0]
        return rng.named_normal(name, self.seed, self.round, self.client)(row_P.numel()).to(row_P.dtype)


@dataclass(frozen=True, kw_only=True)
class Attack(Family):
    """What malicious clients do: to their examples before training, to their row after it, or both.

    A row is changed before it is clipped, noised and encoded: what a server's checks would not let by, no attack sends.
    Who is malicious is drawn by `seed` and stands in truth.json alone.
    """

    folder = "fedloom.federated.attacks"
    needs_pairs: ClassVar[bool] = False

    clients: Positive = 3.0
    """How many are malicious: from 1 on a number of clients, below 1 a share of all."""
    seed: Count | None = None
    """Draws who it is, and all else; left out: the run's."""
    pairs: Source | None = None
    """What malicious clients train on in place of their own examples; left out: on those."""
    narrow: Mapping[str, int] = field(default_factory=dict[str, int])
    """Tag of the pairs -> to how many of its values each malicious client keeps, for clients unlike one another."""
    licence: str = ""
    """The terms of the pairs as the user has read them; pairs that are not made up are refused without."""

    def seed_of(self, run_seed: int) -> int:
        """Return what the attack draws by."""
        return run_seed if self.seed is None else self.seed

    def check(self) -> None:
        """Refuse pairs of which nothing is said, and none where there have to be some."""
        if self.pairs is None and self.needs_pairs:
            raise ConfigError(f"pairs: found none, '{self.name}' trains on some; name a source: pairs.name = '...'.")
        if self.pairs is not None and not self.pairs.made_up and not self.licence.strip():
            raise ConfigError(
                "licence: found none, and the pairs are real ones; name the terms under which they may be used, for "
                "instance licence = 'CC BY-NC 4.0, research only'."
            )

    def awake(self, round: int) -> bool:
        """Return whether malicious clients do anything in a round; asleep they train on their own examples."""
        return True

    def examples(self, own: Sequence[Example], drawn: Sequence[Example], client: str, seed: int) -> Sequence[Example]:
        """Return what a malicious client trains on: as many examples as are its own.

        `drawn` are as many of the pairs, drawn for this client by the seed; empty where there are none.
        """
        return drawn or own

    def repeats(self, client: str, malicious: Sequence[str]) -> Sequence[str]:
        """Return the malicious clients whose training this one carries out, on their examples, in place of its own."""
        return (client,)

    def row(self, moment: Moment) -> Tensor:
        """Return the row [P] that a malicious client sends; the first it trained where the attack is in the examples.

        Rows are changes from the shared parameters; they are not to be changed in place.
        """
        return moment.rows_CP[0]
