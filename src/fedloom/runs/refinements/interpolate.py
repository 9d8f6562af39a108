"""The trained model drawn back towards the one that training started from.

Two controls of a defence after training (https://arxiv.org/abs/2406.10630, section 5, which has none): with alpha = 0
the adapter of before the attack is used again, which costs all that was learnt; between, change is scaled down, good
and bad alike. With alpha = 1 nothing changes.

Deviations: each number is interpolated, start + alpha (trained - start), so of an adapter B A both factors are.
"""

from fedloom.base.plugin import Fraction, plugin
from fedloom.base.tree import Tree
from fedloom.contracts.stages import Refined, Refinement, Trained

__all__ = ["Interpolate"]


@plugin("interpolate")
class Interpolate(Refinement):
    """Scales what training changed by `alpha`."""

    alpha: Fraction = 0.5
    """Weight of the trained model; the rest is the start's."""

    def __call__(self, trained: Trained) -> Refined:
        """Return start + alpha (trained - start) of each number."""
        start: Tree = {name: trained.model.trainable[name].to(value.device) for name, value in trained.params.items()}
        return Refined({name: start[name].lerp(value, self.alpha) for name, value in trained.params.items()})
