"""Where examples come from (`sources`) and who owns them (`partitions`)."""

__all__: list[str] = []
