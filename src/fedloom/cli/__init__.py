"""The command line, a file for each group of commands; heavy modules are imported inside them."""

__all__: list[str] = []
