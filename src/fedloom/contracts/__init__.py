"""Every extension point, and the values that cross it."""

__all__: list[str] = []
