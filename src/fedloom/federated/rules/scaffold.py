"""SCAFFOLD: control variates cancel the drift of clients whose data differ.

Karimireddy et al., 2020, SCAFFOLD: Stochastic Controlled Averaging for Federated Learning,
https://arxiv.org/abs/1910.06378, Algorithm 1 with option II. With c the server's control, c_i the client's, K local
steps at learning rate lr and N clients of which the set S takes part in the round:

    w <- w - lr (g(w) - c_i + c)                     line 10, K times
    c_i+ <- c_i - c + (anchor - w) / (K lr)          line 12, option II
    c <- c + |S|/N mean over S of (c_i+ - c_i)       lines 16 and 17; uniform whatever the run's weighting

Deviations: the correction lr (c - c_i) is subtracted after the optimiser's step, so that it reaches the parameters
unscaled. For plain SGD that is line 10 exactly. With AdamW it is the published practice (OpenFedLLM), a heuristic:
(anchor - w) / (K lr) is then in Adam-normalised units, about 1 in size whatever the gradients are, and so are the
controls. Momentum, weight decay and gradient clipping bend the path that option II measures, so that the controls are
mean steps divided by lr and no longer mean gradients; the theorems of the paper cover none of the three. The paper's
global step size is the server optimiser's. Parameters are averaged with the run's weighting (the paper: uniformly), but
where training comes to rest is the optimum of the uniform objective in any case (tested), because the controls are
uniform: who wants FedAvg's weighted objective must not look for it here.
"""

from typing import ClassVar

from fedloom.base.plugin import plugin
from fedloom.base.tree import Slots, Tree, add, scale, sub, zeros_like
from fedloom.contracts.federated import Local, Rule

__all__ = ["Scaffold"]


def _drift(local: Local) -> Tree:
    """Return c - c_i, which the client takes off each step."""
    return sub(local.shared["control"], local.memory["control"])


@plugin("scaffold")
class Scaffold(Rule):
    """SCAFFOLD, option II; the first round is FedAvg's, because all controls start at zero."""

    uniform_slots: ClassVar[frozenset[str]] = frozenset({"control"})

    def init_shared(self, params: Tree) -> Slots:
        """Return the server's control c = 0."""
        return {"control": zeros_like(params)}

    def init_memory(self, params: Tree) -> Slots:
        """Return the client's control c_i = 0."""
        return {"control": zeros_like(params)}

    def adjust(self, params: Tree, local: Local, *, lr: float) -> Tree:
        """Return params - lr (c - c_i)."""
        return add(params, _drift(local), -lr)

    def finish(self, params: Tree, local: Local, *, steps: int, lr: float) -> tuple[Slots, Slots]:
        """Return the changes of parameters and control, and the client's new control."""
        mean_step = scale(sub(local.anchor, params), 1 / (steps * lr))
        control = sub(mean_step, _drift(local))
        upload = {"delta": sub(params, local.anchor), "control": sub(control, local.memory["control"])}
        return upload, {"control": control}

    def merge(self, shared: Slots, mean: Slots, *, fraction: float) -> tuple[Tree, Slots]:
        """Return the mean change and the server's new control."""
        return mean["delta"], {"control": add(shared["control"], mean["control"], fraction)}
