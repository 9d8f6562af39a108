"""How a model is brought to write new questions, one way per file: each a `Questioner`."""

__all__: list[str] = []
