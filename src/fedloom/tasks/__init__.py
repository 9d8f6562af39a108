"""What is learnt, one task per file: each a `Task`."""

__all__: list[str] = []
