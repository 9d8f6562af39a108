"""From the rows of a round to one row, one way per file: each an `Aggregator`."""

__all__: list[str] = []
