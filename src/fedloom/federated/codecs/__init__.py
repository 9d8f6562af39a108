"""How a row travels, one way per file: each a `Codec`."""

__all__: list[str] = []
