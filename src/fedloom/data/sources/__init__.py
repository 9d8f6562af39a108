"""Data sets and file formats, one per file: each a `Source`."""

__all__: list[str] = []
