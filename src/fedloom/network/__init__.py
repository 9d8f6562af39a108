"""Rounds between machines that do not trust each other: keys, channel, what a node accepts, and what it writes down."""

__all__: list[str] = []
