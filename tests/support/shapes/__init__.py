"""A family of plug-ins for the tests of plug-ins and run files, so that the real families stay as they are shipped."""

from fedloom.base.plugin import Family

__all__ = ["Shape"]


class Shape(Family):
    """Something with an area."""

    folder = "support.shapes"

    def area(self) -> float:
        """Return the area; a shape without one has 0."""
        return 0.0
