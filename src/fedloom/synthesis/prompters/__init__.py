"""How samples are put into words: each a `Prompter`."""

__all__: list[str] = []
