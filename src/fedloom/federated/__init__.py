"""Rounds, the training of clients, and what happens to their rows."""

__all__: list[str] = []
