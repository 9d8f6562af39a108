"""Federated algorithms, one per file: each a `Rule`."""

__all__: list[str] = []
