"""Held-out questions, metrics and what their numbers are worth."""

__all__: list[str] = []
