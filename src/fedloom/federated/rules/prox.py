"""FedProx: clients are held near the parameters that they were sent.

Li et al., 2020, Federated Optimization in Heterogeneous Networks, https://arxiv.org/abs/1812.06127, equation 2: the
local loss gains mu/2 ||w - anchor||^2 over all shared numbers together, here in gradient form, mu (w - anchor).

Deviations: the local problem is solved by the run's optimiser for a fixed number of steps, not to gamma-inexactness;
clients are drawn uniformly and weighted in the mean (the paper's Algorithm 2 draws by weight and averages plainly). The
term is added to the gradient before it is clipped, as automatic differentiation of the published loss does.
"""

from fedloom.base.plugin import NonNegative, plugin
from fedloom.base.tree import Slots, Tree, add, sub
from fedloom.contracts.federated import Local, Rule

__all__ = ["Prox"]


@plugin("prox")
class Prox(Rule):
    """FedProx: FedAvg with a proximal term; mu = 0 is FedAvg bit for bit."""

    mu: NonNegative = 0.01
    """Strength of the proximal term."""

    def correct(self, grad: Tree, params: Tree, local: Local) -> Tree:
        """Return grad + mu (params - anchor)."""
        return add(grad, sub(params, local.anchor), self.mu)

    def finish(self, params: Tree, local: Local, *, steps: int, lr: float) -> tuple[Slots, Slots]:
        """Return {"delta": params - anchor} and no memory."""
        return {"delta": sub(params, local.anchor)}, {}

    def merge(self, shared: Slots, mean: Slots, *, fraction: float) -> tuple[Tree, Slots]:
        """Return the mean change and no slots."""
        return mean["delta"], {}
