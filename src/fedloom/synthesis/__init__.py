"""Instruction data made of unstructured text: examples selected, pairs generated, filtered and accounted for."""

__all__: list[str] = []
