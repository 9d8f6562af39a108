"""No plug-in: its name begins with an underscore."""

__all__: list[str] = []
