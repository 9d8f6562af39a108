"""A client's few examples: those that most of a sample of its documents resemble most.

One prompt prefix serves all documents of a client, which a completer reads once.

Deviations: whether FedIT-U2S does so is not published; this is one reading.
"""

import numpy as np

from fedloom.base import rng
from fedloom.base.plugin import AtLeast, plugin
from fedloom.contracts.synthesis import Similarities, Where
from fedloom.synthesis.selectors._retrieval import Retrieval, most_similar

__all__ = ["ClientShortlist"]


@plugin("client_shortlist")
class ClientShortlist(Retrieval):
    """All documents of a client share the examples that win most often among a sample of them."""

    sample: AtLeast = 32
    """Documents that are asked for their nearest example."""

    def retrieved(self, near: Similarities, where: Where) -> list[tuple[int, ...]]:
        """Return the same k rows for each document, the most frequent winner last."""
        n_documents, n_rows = near.to_pool_NM.shape
        draw = rng.numpy_random(where.seed, "shortlist", where.client)
        asked = draw.permutation(n_documents)[: self.sample]
        wins_M = np.bincount(near.to_pool_NM[asked].argmax(axis=1), minlength=n_rows)
        return [most_similar(wins_M.astype(np.float64), self.k)] * n_documents

    def brings_in(self) -> str:
        """Sampled documents have a say in what the others are shown."""
        return "selector.name = 'client_shortlist'"
