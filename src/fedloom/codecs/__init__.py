"""How rows travel, one encoding per file: each a `Codec`."""

__all__: list[str] = []
