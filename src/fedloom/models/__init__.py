"""Model families, one per file: each a `ModelFamily`."""

__all__: list[str] = []
