"""The models that the room brings."""

__all__: list[str] = []
