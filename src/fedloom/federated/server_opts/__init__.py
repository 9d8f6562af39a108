"""Server optimisers, one per file: each a `ServerOpt`."""

__all__: list[str] = []
