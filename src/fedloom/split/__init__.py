"""Split training: the middle of a language model at a server, what touches text at the clients (docs/split.md)."""

__all__: list[str] = []
