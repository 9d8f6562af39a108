"""Similar examples that differ from one another: maximal marginal relevance.

Greedily argmax over e of lambda cos(d, e) - (1 - lambda) max over chosen s of cos(e, s) (Carbonell and Goldstein, 1998,
https://doi.org/10.1145/290941.291025); with lambda = 1 it is `per_datum`.

Deviations: none.
"""

import numpy as np
from numpy.typing import NDArray

from fedloom.base.plugin import Fraction, plugin
from fedloom.contracts.synthesis import Similarities, Where
from fedloom.synthesis.selectors._retrieval import Retrieval

__all__ = ["MarginalRelevance"]


@plugin("mmr")
class MarginalRelevance(Retrieval):
    """Each document retrieves examples that resemble it and not each other."""

    relevance: Fraction = 0.7
    """Lambda: how much resembling the document counts beside not resembling the other examples."""

    def retrieved(self, near: Similarities, where: Where) -> list[tuple[int, ...]]:
        """Return k rows of each document, the most similar to it last."""
        return [self._chosen(similarity_M, near.within_pool_MM) for similarity_M in near.to_pool_NM]

    def _chosen(self, similarity_M: NDArray[np.float64], within_MM: NDArray[np.float64]) -> tuple[int, ...]:
        chosen: list[int] = []
        for _ in range(self.k):
            closest_M = within_MM[chosen].max(axis=0) if chosen else np.zeros(len(similarity_M))
            gain_M = self.relevance * similarity_M - (1 - self.relevance) * closest_M
            gain_M[chosen] = -np.inf
            chosen.append(int(gain_M.argmax()))
        return tuple(sorted(chosen, key=lambda row: (similarity_M[row], -row)))
