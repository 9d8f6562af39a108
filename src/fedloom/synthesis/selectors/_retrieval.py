"""What retrieving selectors share: a number of examples, and what a document is shown that nothing resembles."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import AtLeast, Range
from fedloom.contracts.synthesis import Selection, Selector, Similarities, Where

__all__ = ["Retrieval", "check_size", "most_similar"]


def check_size(k: int, n_rows: int) -> None:
    """Refuse more examples than the pool has."""
    if k > n_rows:
        raise ConfigError(f"selector.k: found {k}, the pool has {n_rows} rows; lower k, or give a larger pool.")


def most_similar(similarity_M: NDArray[np.float64], k: int) -> tuple[int, ...]:
    """Return the k most similar rows, the most similar last; of equal ones the earlier row counts for more."""
    order = np.argsort(-similarity_M, kind="stable")[:k]
    return tuple(int(row) for row in order[::-1])


@dataclass(frozen=True, kw_only=True)
class Retrieval(Selector):
    """Examples whose documents resemble the client's."""

    k: AtLeast = 1
    """Examples shown with a document."""
    least: Annotated[float, Range(0, 1)] = 0.05
    """Similarity below which nothing of the pool resembles a document."""
    fallback: Literal["medoid", "zero_shot"] = "medoid"
    """What such a document is shown: the row that resembles the pool most, or no example."""

    def __call__(self, near: Similarities, where: Where) -> list[Selection]:
        """Return the retrieved rows, or the fallback for documents that nothing resembles."""
        check_size(self.k, len(near.within_pool_MM))
        chosen = self.retrieved(near, where)
        instead = self._instead(near)
        lost_N = near.to_pool_NM.max(axis=1, initial=0.0) < self.least
        return [instead if lost else Selection(rows) for rows, lost in zip(chosen, lost_N, strict=True)]

    @abstractmethod
    def retrieved(self, near: Similarities, where: Where) -> Sequence[tuple[int, ...]]:
        """Return the rows for each document, the most similar last."""

    def _instead(self, near: Similarities) -> Selection:
        if self.fallback == "zero_shot":
            return Selection((), fallback=True)
        return Selection(most_similar(near.within_pool_MM.mean(axis=0), 1), fallback=True)
