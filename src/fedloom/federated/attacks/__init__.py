"""What malicious clients do, one way per file: each an `Attack`."""

__all__: list[str] = []
