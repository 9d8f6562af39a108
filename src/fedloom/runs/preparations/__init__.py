"""What each client does with its examples before training, one way per file: each a `Preparation`."""

__all__: list[str] = []
