"""The question that begins a conversation, as the model itself draws it: nothing is shown.

A model that was tuned on whole conversations (`task.learn = "all"`) has learnt how its owners ask; one that was tuned
on answers alone asks as its base does.
"""

from collections.abc import Sequence

from fedloom.base.plugin import plugin
from fedloom.contracts.synthesis import Ask, PoolRow, Questioner

__all__ = ["Free"]


@plugin("free")
class Free(Questioner):
    """Draws questions from the model."""

    def asks(self, seeds: Sequence[PoolRow], count: int, seed: int) -> list[Ask]:
        """Return as many asks that show nothing."""
        return [Ask(())] * count

    def read(self, text: str) -> tuple[str, str]:
        """Return the question, and no response."""
        return text.strip(), ""
