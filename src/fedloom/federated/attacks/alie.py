"""A little is enough: a row within the spread of the others, all malicious clients on one side.

Baruch et al., 2019, "A Little Is Enough: Circumventing Defenses For Distributed Learning"
(https://arxiv.org/abs/1902.06156), algorithm 3: mean and standard deviation of each number are estimated from the
rows that the colluders' own training gives, and all send mean + z sigma (the sign of z is the attacker's to choose).

Deviations: published is z_max from the number of workers, which a client does not know: `z` is set. Every colluder
repeats the training of all of them, whether they are sampled or not, so that each can send its row alone.
"""

from collections.abc import Sequence

from torch import Tensor

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import plugin
from fedloom.contracts.attack import Attack, Moment

__all__ = ["ALittleIsEnough"]


@plugin("alie")
class ALittleIsEnough(Attack):
    """Sends the mean of the colluders' rows, moved by `z` of their standard deviations."""

    z: float = -1.0
    """Standard deviations by which the mean is moved, up or down."""

    def check(self) -> None:
        """Refuse a lone attacker, whose rows have no spread."""
        super().check()
        if 1 <= self.clients < 2:
            raise ConfigError(f"clients: found {self.clients:g}, allowed are 2 or more: one row has no spread.")

    def repeats(self, client: str, malicious: Sequence[str]) -> Sequence[str]:
        """Return all of them."""
        return malicious

    def row(self, moment: Moment) -> Tensor:
        """Return mean + z sigma."""
        rows_CP = moment.rows_CP.double()
        row_P = rows_CP.mean(0) + self.z * rows_CP.std(0, correction=0)
        return row_P.to(moment.rows_CP.dtype)
