"""How the data of clients differ, axis by axis."""

__all__: list[str] = []
