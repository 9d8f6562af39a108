"""Who makes samples of a class, one way per file: each a `Generator`."""

__all__: list[str] = []
