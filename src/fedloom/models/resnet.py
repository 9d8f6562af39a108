"""Residual networks (He et al., 2016, https://arxiv.org/abs/1512.03385) with group norm (Wu and He, 2018, 1803.08494).

y = F(x) + W x, eq. 1 and 2, W a convolution of 1 x 1 where shapes change. `depth` 20 is section 4.2's network for small
pictures, 18 the one of table 1 with a stem of 3 x 3.

Deviations: group norm in place of batch norm, whose statistics would be a client's and leave it unseen; no pooling
behind the stem, as the pictures are small.
"""

from typing import Literal

from torch import nn

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import AtLeast, plugin
from fedloom.models._classifiers import Classifier
from fedloom.models.side_by_side import Residual

__all__ = ["ResNet"]


def _block(before: int, after: int, stride: int, groups: int) -> Residual:
    inner = nn.Sequential(
        *(nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.GroupNorm(groups, after), nn.ReLU()),
        *(nn.Conv2d(after, after, 3, padding=1, bias=False), nn.GroupNorm(groups, after)),
    )
    same = stride == 1 and before == after
    short = [nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.GroupNorm(groups, after)]
    return Residual(inner, nn.Identity() if same else nn.Sequential(*short))


@plugin("resnet")
class ResNet(Classifier):
    """A residual network for pictures of 8 x 8 pixels and more."""

    inputs: tuple[AtLeast, ...]
    """Shape of a picture: [C, H, W], at least 8 x 8."""
    classes: AtLeast
    """Number of classes."""
    depth: Literal[18, 20] = 20
    """18: four stages of 64 to 512 channels; 20: three of 16 to 64."""
    groups: AtLeast = 8
    """Groups of a norm."""

    def check(self) -> None:
        """Refuse what is no picture, and groups that do not divide the channels."""
        if len(self.inputs) != 3 or min(self.inputs[1:]) < 8:
            raise ConfigError(f"inputs: found {list(self.inputs)}, allowed is [C, H, W] with H and W of 8 or more.")
        if 16 % self.groups:
            raise ConfigError(f"groups: found {self.groups}, allowed is 1, 2, 4, 8 or 16.")

    def module(self) -> nn.Module:
        """Return the module."""
        widths, n_blocks = ((64, 128, 256, 512), 2) if self.depth == 18 else ((16, 32, 64), 3)
        colours = self.inputs[0]
        parts: list[nn.Module] = [
            *(nn.Conv2d(colours, widths[0], 3, padding=1, bias=False), nn.GroupNorm(self.groups, widths[0]), nn.ReLU())
        ]
        before = widths[0]
        for stage, width in enumerate(widths):
            for block in range(n_blocks):
                parts.append(_block(before, width, 2 if stage and not block else 1, self.groups))
                before = width
        return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, self.classes))
