"""Body models: a procedural one that needs nothing, and those whose files a user has."""

__all__: list[str] = []
