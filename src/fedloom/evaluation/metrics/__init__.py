"""Scores of predictions, one per file, or several that differ in a number or a word: each a `Metric`."""

__all__: list[str] = []
