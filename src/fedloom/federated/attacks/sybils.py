"""Many clients of one attacker, which all send nearly the same row.

Fung et al., 2018, "Mitigating Sybils in Federated Learning Poisoning" (https://arxiv.org/abs/1808.04866), section 4.1:
the attack that FoolsGold is made against, which takes rows that are too alike for those of sybils.

Deviations: all repeat the training of the first one, on its examples and batches, and differ by normal noise alone,
told in multiples of the row's root mean square.
"""

from collections.abc import Sequence

from torch import Tensor

from fedloom.base.plugin import NonNegative, plugin
from fedloom.contracts.attack import Attack, Moment

__all__ = ["Sybils"]


@plugin("sybils")
class Sybils(Attack):
    """Sends the first one's row, with a little noise of its own."""

    jitter: NonNegative = 0.01
    """Standard deviation of what copies differ by, in root mean squares of the row."""

    def repeats(self, client: str, malicious: Sequence[str]) -> Sequence[str]:
        """Return the first malicious client."""
        return malicious[:1]

    def row(self, moment: Moment) -> Tensor:
        """Return that row, jittered."""
        row_P = moment.rows_CP[0]
        return row_P + self.jitter * row_P.square().mean().sqrt() * moment.noise(self.name)
