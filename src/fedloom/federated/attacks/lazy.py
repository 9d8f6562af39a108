"""A client that takes part and has learnt nothing: it wants the model and gives no work for it.

Lin et al., 2019, "Free-riders in Federated Learning" (https://arxiv.org/abs/1911.12560), section 3: rows that look
like updates, without training. It harms by its weight alone.

Deviations: the row is noise of a size that is set, or zeros; it is trained all the same, and thrown away.
"""

from torch import Tensor

from fedloom.base.plugin import NonNegative, plugin
from fedloom.contracts.attack import Attack, Moment

__all__ = ["Lazy"]


@plugin("lazy")
class Lazy(Attack):
    """Sends zeros, or noise of the standard deviation `std`."""

    std: NonNegative = 0.0
    """Standard deviation of the noise; 0 sends zeros."""

    def row(self, moment: Moment) -> Tensor:
        """Return a row that nothing was learnt for."""
        return self.std * moment.noise(self.name)
