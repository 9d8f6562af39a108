"""Scores of many texts at once, one per file, or several that differ in a word: each a `CorpusMetric`."""

__all__: list[str] = []
