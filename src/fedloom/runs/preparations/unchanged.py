"""The identity: examples are trained on as they are, as without any preparation."""

from collections.abc import Sequence

from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.stages import Made, Owner, Preparation

__all__ = ["Unchanged"]


@plugin("unchanged")
class Unchanged(Preparation):
    """Hands examples on."""

    def __call__(self, examples: Sequence[Example], owner: Owner) -> Made:
        """Return the examples."""
        return Made(examples, {"examples": len(examples)})

    def brings_in(self) -> str:
        """Return "": each example is one example."""
        return ""
