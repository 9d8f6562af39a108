"""Noise in place of a row.

Blanchard et al., 2017, "Machine Learning with Adversaries" (https://arxiv.org/abs/1703.02757), section 5, Gaussian
Byzantine workers: rows drawn from a normal distribution.

Deviations: the standard deviation is told in multiples of the root mean square of the row that training gave, so that
one setting means the same for every model; published is 200 for gradients.
"""

from torch import Tensor

from fedloom.base.plugin import Positive, plugin
from fedloom.contracts.attack import Attack, Moment

__all__ = ["GaussianRow"]


@plugin("gaussian_row")
class GaussianRow(Attack):
    """Sends normal noise, `factor` times as large as what it learnt."""

    factor: Positive = 10.0
    """Standard deviation of the noise, in root mean squares of the row that was learnt."""

    def row(self, moment: Moment) -> Tensor:
        """Return noise."""
        return self.factor * moment.rows_CP[0].square().mean().sqrt() * moment.noise(self.name)
