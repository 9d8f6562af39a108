"""What reads prompts and the answers to them, token by token, and keeps what it has read.

A row is a prompt of one owner; a column is a prompt of all owners, whose stacked parameters read it together. Rows and
logits go in and out owner by owner.

Shape letters: B rows, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor

from fedloom.base.tree import Tree

__all__ = ["Reader", "ReaderOf"]


class Reader(ABC):
    """A model that goes on from what it has read."""

    refills: ClassVar[bool] = False
    """Whether columns may come in beside others that are being written."""
    most: ClassVar[int | None] = None
    """Columns that it takes at a time; None for any number."""

    @abstractmethod
    def admit(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read the prompts of new columns and return the logits [B, V] of what follows each."""

    @abstractmethod
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Read one token of each row and return the logits [B, V] of what follows."""

    @abstractmethod
    def keep(self, columns: Sequence[int]) -> None:
        """Keep the columns of these places, in this order, and forget the others."""


ReaderOf = Callable[[Tree, Sequence[Sequence[int]], int], Reader]
"""Makes what reads prompts with parameters, of which all of so many owners have alike many."""
