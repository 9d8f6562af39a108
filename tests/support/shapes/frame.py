"""A shape around another shape: a plug-in nested in a plug-in."""

from dataclasses import field

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import AtLeast, Fraction, plugin
from support.shapes import Shape
from support.shapes.circle import Circle

__all__ = ["Frame"]


@plugin("frame")
class Frame(Shape):
    """A border."""

    inner: Shape = field(default_factory=Circle)
    width: AtLeast = 1
    gaps: tuple[Fraction, ...] = ()

    def check(self) -> None:
        """Refuse a frame in a frame."""
        if isinstance(self.inner, Frame):
            raise ConfigError("inner: found 'frame', allowed is any other shape.")
