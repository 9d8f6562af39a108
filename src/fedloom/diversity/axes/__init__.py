"""The axes on which the clients of a federation differ, a file each; formulas in docs/diversities.md."""

__all__: list[str] = []
