"""Attacks of a curious server on split training, one way per file: T1 to T5 of section 5.4 of the specification."""

__all__: list[str] = []
