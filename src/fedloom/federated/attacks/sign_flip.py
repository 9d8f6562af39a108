"""The opposite of what was learnt.

Li et al., 2019, "RSA: Byzantine-Robust Stochastic Aggregation Methods" (https://arxiv.org/abs/1811.03761), section 5,
sign-flipping attack: the row is multiplied by a negative number.

Deviations: none.
"""

from torch import Tensor

from fedloom.base.plugin import Positive, plugin
from fedloom.contracts.attack import Attack, Moment

__all__ = ["SignFlip"]


@plugin("sign_flip")
class SignFlip(Attack):
    """Sends its row times -`factor`."""

    factor: Positive = 1.0
    """What rows are multiplied by, with the sign turned."""

    def row(self, moment: Moment) -> Tensor:
        """Return the row turned round."""
        return -self.factor * moment.rows_CP[0]
