"""What everything stands on: errors, randomness, files, tables, settings, plug-ins, trees; no model and no text."""

__all__: list[str] = []
