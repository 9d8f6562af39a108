"""No privacy: contributions are averaged as they are."""

from fedloom.contracts import Mechanism
from fedloom.plugin import plugin

__all__ = ["NoPrivacy"]


@plugin("none")
class NoPrivacy(Mechanism):
    """The defaults of the family: nothing is clipped, no noise is added and no epsilon is stated."""
