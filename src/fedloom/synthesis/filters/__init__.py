"""What decides whether a generated pair is kept, one step per file: each a `Filter`."""

__all__: list[str] = []
