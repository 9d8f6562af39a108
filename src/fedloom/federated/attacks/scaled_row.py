"""Model replacement: a malicious row so long that it outweighs all others in the mean.

Bagdasaryan et al., 2018, "How To Backdoor Federated Learning" (https://arxiv.org/abs/1807.00459), eq. 3: the change is
multiplied by gamma = n / eta, the number of rows over the server's rate, after which the mean is the attacker's model.

Deviations: `factor` is gamma itself; an attacker does not know how many rows a round has, it guesses.
"""

from torch import Tensor

from fedloom.base.plugin import Positive, plugin
from fedloom.contracts.attack import Attack, Moment

__all__ = ["ScaledRow"]


@plugin("scaled_row")
class ScaledRow(Attack):
    """Sends `factor` times its row."""

    factor: Positive = 10.0
    """What rows are multiplied by."""

    def row(self, moment: Moment) -> Tensor:
        """Return the row, longer."""
        return self.factor * moment.rows_CP[0]
