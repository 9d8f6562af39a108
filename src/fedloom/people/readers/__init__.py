"""Readers of other people's files: what a parser wrote, and the layouts of scanned people. Nothing is fetched."""

__all__: list[str] = []
