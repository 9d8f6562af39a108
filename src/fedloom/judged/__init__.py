"""Open questions, graded by a judge."""

__all__: list[str] = []
