"""Suites of runs, their rankings, claims and page."""

__all__: list[str] = []
