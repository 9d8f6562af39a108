"""What happens between the parties, one protocol per file."""

__all__: list[str] = []
