"""How a total is dealt to parts: each an `Allocator`."""

__all__: list[str] = []
