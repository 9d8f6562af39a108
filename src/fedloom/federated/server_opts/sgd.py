"""The server adds the mean change: FedAvg, and with momentum FedAvgM.

With d the mean change of the round and b the momentum, theta <- theta + lr u, where u is

    momentum 0      d: FedAvg exactly, theta + d bit for bit at lr = 1 (McMahan et al., 2017,
                    https://arxiv.org/abs/1602.05629, Algorithm 1)
    "hsu"           v <- b v + d, u = v (Hsu et al., 2019, Measuring the Effects of Non-Identical Data Distribution,
                    https://arxiv.org/abs/1909.06335, FedAvgM)
    "published"     m <- b m + (1 - b) d, m = d undamped in round 0, u = m (FedAvgM of OpenFedLLM,
                    https://arxiv.org/abs/2402.06954)

The variants differ by about 1 / (1 - b) in the length of their steps, which `lr` can make up for.

Deviations: Hsu et al. write the gradient as -d and the step as theta - v, the same numbers; neither source has `lr`
(1 is theirs); there is no Nesterov form.
"""

from typing import Literal

import torch

from fedloom.base.plugin import Fraction, Positive, plugin
from fedloom.base.tree import Slots, Tree, add, map_trees, scale, zeros_like
from fedloom.contracts.federated import ServerOpt
from fedloom.federated.server_opts._adaptive import refuse_one

__all__ = ["Sgd"]


@plugin("sgd")
class Sgd(ServerOpt):
    """Plain averaging, or averaging with server momentum."""

    lr: Positive = 1.0
    """Learning rate of the server."""
    momentum: Fraction = 0.0
    """Share of the old momentum that is kept; 0 is FedAvg."""
    variant: Literal["published", "hsu"] = "published"
    """Whether the momentum is a damped mean (OpenFedLLM) or a plain sum (Hsu et al.)."""

    def check(self) -> None:
        """Refuse a momentum of 1."""
        refuse_one(momentum=self.momentum)

    def init(self, params: Tree) -> Slots:
        """Return the momentum, zero; nothing without momentum."""
        return {"momentum": zeros_like(params)} if self.momentum else {}

    def step(self, params: Tree, delta: Tree, state: Slots, *, round: int) -> tuple[Tree, Slots]:
        """Return params + lr times the direction, and the direction as the new momentum."""
        if not self.momentum:
            return add(params, delta, self.lr), {}
        direction = self._direction(delta, state["momentum"], round=round)
        return add(params, direction, self.lr), {"momentum": direction}

    def _direction(self, delta: Tree, momentum: Tree, *, round: int) -> Tree:
        if self.variant == "hsu":
            return add(delta, momentum, self.momentum)
        if round == 0:
            return map_trees(torch.clone, delta)
        return add(scale(momentum, self.momentum), delta, 1 - self.momentum)

    def gain(self, state: Slots) -> float:
        """Return lr, the factor of the direction."""
        return self.lr
