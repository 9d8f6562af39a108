"""How examples of the pool are chosen for a document, one way per file: each a `Selector`."""

__all__: list[str] = []
