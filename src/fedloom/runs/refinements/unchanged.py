"""The identity: the trained parameters are the result, as without any refinement."""

from fedloom.base.plugin import plugin
from fedloom.contracts.stages import Refined, Refinement, Trained

__all__ = ["Unchanged"]


@plugin("unchanged")
class Unchanged(Refinement):
    """Hands parameters on."""

    def __call__(self, trained: Trained) -> Refined:
        """Return the parameters."""
        return Refined(trained.params)
