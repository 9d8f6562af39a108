"""How turns become text, one way per file: each a `Template`."""

__all__: list[str] = []
