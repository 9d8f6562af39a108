"""A malicious row kept as short as benign ones, against rules that look at lengths.

Sun et al., 2019, "Can You Really Backdoor Federated Learning?" (https://arxiv.org/abs/1911.07963), section 4.2: the
attacker scales its change to the bound that it assumes the server to have.

Deviations: training is not projected onto the ball at each step; the row is scaled once, at the end.
"""

from torch import Tensor

from fedloom.base.plugin import Positive, plugin
from fedloom.contracts.attack import Attack, Moment

__all__ = ["NormBounded"]


@plugin("norm_bounded")
class NormBounded(Attack):
    """Scales its row down to the norm `max_norm`; a shorter one is sent as it is."""

    max_norm: Positive = 1.0
    """Norm to which rows are cut."""

    def row(self, moment: Moment) -> Tensor:
        """Return the row, no longer than allowed."""
        row_P = moment.rows_CP[0]
        return row_P * min(1.0, self.max_norm / max(float(row_P.norm()), 1e-12))
