"""What protects contributions, one way per file: each a `Mechanism`."""

__all__: list[str] = []
