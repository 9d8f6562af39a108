"""A small convolutional network for pictures of a few dozen pixels, as simulators of federated learning have one."""

from torch import nn

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import AtLeast, plugin
from fedloom.models._classifiers import Classifier

__all__ = ["SmallCnn"]


@plugin("small_cnn")
class SmallCnn(Classifier):
    """Two convolutions of 3 x 3 with ReLU and maxima of 2 x 2, and two linear layers."""

    inputs: tuple[AtLeast, ...]
    """Shape of a picture: [C, H, W], at least 4 x 4."""
    classes: AtLeast
    """Number of classes."""
    channels: AtLeast = 16
    """Of the first convolution; the second has twice as many."""
    hidden: AtLeast = 64
    """Width of the layer before the scores."""

    def check(self) -> None:
        """Refuse what is no picture."""
        if len(self.inputs) != 3 or min(self.inputs[1:]) < 4:
            raise ConfigError(f"inputs: found {list(self.inputs)}, allowed is [C, H, W] with H and W of 4 or more.")

    def module(self) -> nn.Module:
        """Return the module."""
        colours, height, width = self.inputs
        last = 2 * self.channels * (height // 4) * (width // 4)
        return nn.Sequential(
            *(nn.Conv2d(colours, self.channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(self.channels, 2 * self.channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(last, self.hidden), nn.ReLU(), nn.Linear(self.hidden, self.classes)),
        )
