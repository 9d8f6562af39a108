"""FedAdagrad: each number's step shrinks with the squares that it has seen.

Reddi et al., 2021, Adaptive Federated Optimization, https://arxiv.org/abs/2003.00295, Algorithm 2. With d the mean
change of the round:

    v <- v + d^2
    theta <- theta + lr d / (sqrt(v) + tau)

No bias correction, as in the paper. The gain over FedAvg is lr / (sqrt(v) + tau): with lr = tau = sqrt(v_0) = 1e-3 it
starts below 0.5 and only falls, so that these constants are a damped FedAvg.

Deviations: none from the algorithm with beta_1 = 0, the paper's choice for FedAdagrad and that of OpenFedLLM
(https://arxiv.org/abs/2402.06954). Its mean over clients is uniform there; here that is the run's `weighting`.
"""

from fedloom.base.plugin import NonNegative, Positive, plugin
from fedloom.base.tree import Slots, Tree, map_trees
from fedloom.contracts.federated import ServerOpt
from fedloom.federated.server_opts._adaptive import first_squares, mean_gain, scaled_step

__all__ = ["Adagrad"]


@plugin("adagrad")
class Adagrad(ServerOpt):
    """FedAdagrad without momentum."""

    lr: Positive = 1e-3
    """The paper's eta, the server's learning rate."""
    tau: Positive = 1e-3
    """Degree of adaptivity; the smaller, the more the steps of different numbers are made alike."""
    initial: NonNegative | None = None
    """v before the first round; left out, tau squared."""

    def init(self, params: Tree) -> Slots:
        """Return the first v."""
        return {"squares": first_squares(params, self.initial, self.tau)}

    def step(self, params: Tree, delta: Tree, state: Slots, *, round: int) -> tuple[Tree, Slots]:
        """Return the new parameters and v + delta^2."""
        squares = map_trees(lambda v, d: v + d.square(), state["squares"], delta)
        return scaled_step(params, delta, squares, lr=self.lr, tau=self.tau), {"squares": squares}

    def gain(self, state: Slots) -> float:
        """Return the mean of lr / (sqrt(v) + tau)."""
        return mean_gain(state, lr=self.lr, tau=self.tau)
