"""A multilayer perceptron: the classifier of tables and of small pictures."""

import math
from itertools import pairwise

from torch import nn

from fedloom.base.plugin import AtLeast, plugin
from fedloom.models._classifiers import Classifier

__all__ = ["Mlp"]


@plugin("mlp")
class Mlp(Classifier):
    """Linear layers with ReLU between them; the inputs are taken as one row of numbers."""

    inputs: tuple[AtLeast, ...]
    """Shape of an example: [D] of a row, [C, H, W] of a picture."""
    classes: AtLeast
    """Number of classes."""
    hidden: tuple[AtLeast, ...] = (64,)
    """Widths of the layers in between."""

    def module(self) -> nn.Module:
        """Return the module."""
        widths = [math.prod(self.inputs), *self.hidden, self.classes]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers[:-1])
