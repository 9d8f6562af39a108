"""Who trains with whom, one way per file: each an `Arrangement`."""

__all__: list[str] = []
