"""Scores of predictions, one per file: each a `Metric`."""

__all__: list[str] = []
