"""What rules that look at the model share: a row as a model's parameters, and the server that they need."""

from torch import Tensor

from fedloom.base.errors import ConfigError
from fedloom.base.tree import Tree
from fedloom.contracts.aggregation import Aggregator, Frame, Server
from fedloom.contracts.model import Model

__all__ = ["params_of", "server_of"]


def server_of(rule: Aggregator, frame: Frame) -> Server:
    """Return the round's server; ConfigError where there is none."""
    if frame.server is None:
        raise ConfigError(f"aggregator: '{rule.name}' looks at the model, which is not at hand where rows are merged.")
    return frame.server


def params_of(row_P: Tensor, frame: Frame, model: Model) -> Tree:
    """Return the parameters of the model that a row alone would lead to, anchor + change, on the model's device."""
    delta = frame.layout.slots(row_P)["delta"]
    return {name: (value + delta[name]).to(model.device) for name, value in frame.anchor.items()}
