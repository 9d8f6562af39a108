"""What the server does with the trained model, one way per file: each a `Refinement`."""

__all__: list[str] = []
