"""A circle."""

from fedloom.base.plugin import Positive, plugin
from support.shapes import Shape

__all__ = ["Circle"]


@plugin("circle")
class Circle(Shape):
    """Round."""

    radius: Positive = 1.0

    def area(self) -> float:
        """Return about pi r^2."""
        return 3.14 * self.radius**2
