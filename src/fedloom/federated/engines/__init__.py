"""Where and how many at a time clients train: each an `Engine`."""

__all__: list[str] = []
