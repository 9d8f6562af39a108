"""The examples most similar to a client's documents in the mean, for all of its documents: the cheapest retrieval.

Deviations: none; weak where a client's documents are of several kinds.
"""

from fedloom.base.plugin import plugin
from fedloom.contracts.synthesis import Similarities, Where
from fedloom.synthesis.selectors._retrieval import Retrieval, most_similar

__all__ = ["ClientMean"]


@plugin("client_mean")
class ClientMean(Retrieval):
    """All documents of a client share the examples that resemble them most in the mean."""

    def retrieved(self, near: Similarities, where: Where) -> list[tuple[int, ...]]:
        """Return the same k rows for each document."""
        return [most_similar(near.to_pool_NM.mean(axis=0), self.k)] * len(near.to_pool_NM)

    def brings_in(self) -> str:
        """Every document has a say in what the others are shown."""
        return "selector.name = 'client_mean'"
