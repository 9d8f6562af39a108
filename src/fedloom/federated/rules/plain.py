"""FedAvg: clients train alone, the server averages.

McMahan et al., 2017, Communication-Efficient Learning of Deep Networks from Decentralized Data,
https://arxiv.org/abs/1602.05629, Algorithm 1.

Deviations: none in the rule. The paper averages parameters, here a client uploads its change, delta = w - anchor, which
is the same once the server adds the mean change (`server_opts/sgd`). K is a number of steps, not of epochs; who weighs
how much is the run's `weighting`.
"""

from fedloom.base.plugin import plugin
from fedloom.base.tree import Slots, Tree, sub
from fedloom.contracts.federated import Local, Rule

__all__ = ["Plain"]


@plugin("plain")
class Plain(Rule):
    """FedAvg: the upload is the change of the parameters."""

    def finish(self, params: Tree, local: Local, *, steps: int, lr: float) -> tuple[Slots, Slots]:
        """Return {"delta": params - anchor} and no memory."""
        return {"delta": sub(params, local.anchor)}, {}

    def merge(self, shared: Slots, mean: Slots, *, fraction: float) -> tuple[Tree, Slots]:
        """Return the mean change and no slots."""
        return mean["delta"], {}
