"""What run directories say."""

__all__: list[str] = []
