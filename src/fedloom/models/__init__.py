"""Model families, one per file, each a `ModelFamily`, and what they are made of."""

__all__: list[str] = []
