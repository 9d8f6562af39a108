"""What rules that look at the model share: a row as a model's parameters, and the server that they need."""

from torch import Tensor

from fedloom.base.errors import ConfigError
from fedloom.base.tree import Layout, Tree
from fedloom.contracts.aggregation import Aggregator, Frame, Server
from fedloom.contracts.model import Model

__all__ = ["params_of", "server_of", "shared_layout"]


def server_of(rule: Aggregator, frame: Frame) -> Server:
    """Return the round's server; ConfigError where there is none."""
    if frame.server is None:
        raise ConfigError(f"aggregator: '{rule.name}' looks at the model, which is not at hand where rows are merged.")
    return frame.server


def shared_layout(frame: Frame) -> Layout:
    """Return names and shapes of the shared parameters, in the order of the anchor."""
    return Layout(tuple(("", name, shape) for slot, name, shape in frame.layout.entries if slot == "delta"))


def params_of(row_P: Tensor, frame: Frame, model: Model) -> Tree:
    """Return the parameters of the model that a row alone would lead to, anchor + change, on the model's device."""
    layout, delta = shared_layout(frame), frame.layout.slots(row_P)["delta"]
    anchor = layout.tree(frame.anchor_P)
    return {name: (anchor[name] + delta[name]).to(model.device) for name in anchor}
