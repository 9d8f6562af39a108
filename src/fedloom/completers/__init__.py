"""Whoever answers prompts, one way per file, each a `Completer`, and the file that keeps answers."""

__all__: list[str] = []
