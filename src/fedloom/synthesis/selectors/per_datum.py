"""The most similar examples for each document by itself, as the abstract of FedIT-U2S says it.

S(d) = the k rows with the largest cos(phi(d), phi(d')), d' the document of a row (https://arxiv.org/abs/2409.07136).

Deviations: how similarity is measured there is not published; here by the run's vectors.
"""

from fedloom.base.plugin import plugin
from fedloom.contracts.synthesis import Similarities, Where
from fedloom.synthesis.selectors._retrieval import Retrieval, most_similar

__all__ = ["PerDatum"]


@plugin("per_datum")
class PerDatum(Retrieval):
    """Each document retrieves its own examples."""

    def retrieved(self, near: Similarities, where: Where) -> list[tuple[int, ...]]:
        """Return the k most similar rows of each document."""
        return [most_similar(similarity_M, self.k) for similarity_M in near.to_pool_NM]
