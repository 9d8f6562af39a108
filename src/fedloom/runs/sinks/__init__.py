"""Copies of a run's numbers elsewhere, one way per file: each a `Sink`."""

__all__: list[str] = []
