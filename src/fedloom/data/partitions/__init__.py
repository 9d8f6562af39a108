"""Ways of dividing examples among clients, one per file: each a `Partition`."""

__all__: list[str] = []
