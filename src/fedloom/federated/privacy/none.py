"""No privacy: contributions are averaged as they are."""

from fedloom.base.plugin import plugin
from fedloom.contracts.federated import Mechanism

__all__ = ["NoPrivacy"]


@plugin("none")
class NoPrivacy(Mechanism):
    """The defaults of the family: nothing is clipped, no noise is added and no epsilon is stated."""
