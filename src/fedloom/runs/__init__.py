"""A run: its file, who does what in it, how it is carried out, and its directory."""

__all__: list[str] = []
