"""Scores of many texts at once, one per file: each a `CorpusMetric`."""

__all__: list[str] = []
