"""FedAdam and FedYogi: the server's step follows a momentum, scaled by a running measure of squares.

Reddi et al., 2021, Adaptive Federated Optimization, https://arxiv.org/abs/2003.00295, Algorithm 2. With d the mean
change of the round:

    m <- beta_1 m + (1 - beta_1) d
    v <- beta_2 v + (1 - beta_2) d^2               FedAdam
    v <- v - (1 - beta_2) d^2 sign(v - d^2)        FedYogi: a step that does not depend on v's own size
    theta <- theta + lr m / (sqrt(v) + tau)

There is no bias correction, as in the paper: m starts at 0, so that the first steps are short. The gain over FedAvg is
lr / (sqrt(v) + tau): with lr = tau = sqrt(v_0) = 1e-3 it starts near 0.5, and small changes let it drift towards 1.

Deviations: none in the variant "reddi". The variant "published" is that of OpenFedLLM
(https://arxiv.org/abs/2402.06954): v takes the squared momentum m^2 in place of d^2, and m = d, undamped, in round 0.
The means over clients are uniform in both sources; here that is the run's `weighting`.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedloom.base.plugin import Fraction, NonNegative, Positive, plugin
from fedloom.base.tree import Slots, Tree, map_trees, zeros_like
from fedloom.contracts.federated import ServerOpt
from fedloom.federated.server_opts._adaptive import first_squares, mean_gain, refuse_one, scaled_step

__all__ = ["Adam", "Yogi"]


@dataclass(frozen=True, kw_only=True)
class WithMomentum(ServerOpt):
    """What FedAdam and FedYogi share: all but how v moves; canonical (`reddi`) or as published by OpenFedLLM."""

    lr: Positive = 1e-3
    """The paper's eta, the server's learning rate."""
    tau: Positive = 1e-3
    """Degree of adaptivity; the smaller, the more the steps of different numbers are made alike."""
    beta1: Fraction = 0.9
    """Share of the old momentum that is kept."""
    beta2: Fraction = 0.99
    """Share of the old v that is kept; 1 - beta2 is how far v moves, in squares of the change."""
    initial: NonNegative | None = None
    """v before the first round; left out, tau squared."""
    variant: Literal["reddi", "published"] = "reddi"
    """Whose algorithm: squares of the change (reddi) or of the momentum (published)."""

    def check(self) -> None:
        """Refuse decays of 1."""
        refuse_one(beta1=self.beta1, beta2=self.beta2)

    def init(self, params: Tree) -> Slots:
        """Return m = 0 and the first v."""
        return {"momentum": zeros_like(params), "squares": first_squares(params, self.initial, self.tau)}

    def step(self, params: Tree, delta: Tree, state: Slots, *, round: int) -> tuple[Tree, Slots]:
        """Return the new parameters, m and v."""
        if self.variant == "published" and round == 0:
            momentum = map_trees(torch.clone, delta)
        else:
            momentum = map_trees(lambda m, d: self.beta1 * m + (1 - self.beta1) * d, state["momentum"], delta)
        squares = map_trees(self.moved, state["squares"], delta if self.variant == "reddi" else momentum)
        stepped = scaled_step(params, momentum, squares, lr=self.lr, tau=self.tau)
        return stepped, {"momentum": momentum, "squares": squares}

    @abstractmethod
    def moved(self, v: Tensor, change: Tensor) -> Tensor:
        """Return the new v from the old one and a change."""

    def gain(self, state: Slots) -> float:
        """Return the mean of lr / (sqrt(v) + tau)."""
        return mean_gain(state, lr=self.lr, tau=self.tau)


@plugin("adam")
class Adam(WithMomentum):
    """FedAdam: v is a running mean of squares."""

    def moved(self, v: Tensor, change: Tensor) -> Tensor:
        """Return beta_2 v + (1 - beta_2) d^2."""
        return self.beta2 * v + (1 - self.beta2) * change.square()


@plugin("yogi")
class Yogi(WithMomentum):
    """FedYogi: v moves by a step that does not depend on its own size."""

    def moved(self, v: Tensor, change: Tensor) -> Tensor:
        """Return v - (1 - beta_2) d^2 sign(v - d^2)."""
        square = change.square()
        return v - (1 - self.beta2) * square * torch.sign(v - square)
