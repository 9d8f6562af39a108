"""Server optimisers, one per file, or several that differ in a word: each a `ServerOpt`."""

__all__: list[str] = []
