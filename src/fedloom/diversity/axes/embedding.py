"""Embedding: the squared maximum mean discrepancy of each client's instructions to those of all clients.

MMD (Gretton et al. 2012, JMLR 13, eq. 2 with the biased estimate, eq. 5) with a Gaussian kernel, through random Fourier
features (Rahimi & Recht 2007, "Random features for large-scale kernel machines"):

    phi(x) = F^-1/2 (cos w_1 x, sin w_1 x, ..., cos w_F x, sin w_F x),  w ~ N(0, 1 / bandwidth^2),  MMD^2 = |m_k - m|^2

with m_k the client's mean of phi and m that of the pool. The w are the same everywhere and drawn from a public seed.
|phi| = 1, so chance gives (1 - |m|^2) (N - n) / (n (N - 1)) for n of N records, and a client of share w has at most
2 (1 - w)^2.

Deviations: the published benchmark draws t-SNE of all instructions, which takes each embedding to one place.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from fedloom.base import rng
from fedloom.base.plugin import plugin
from fedloom.contracts.diversity import Aggregate, Diversity, Found, Index, Instruments, Vectors
from fedloom.contracts.examples import Example
from fedloom.data.example_texts import instruction, response

__all__ = ["Embedding"]

_FREQUENCIES = 256


@plugin("embedding")
class Embedding(Diversity):
    """Where the instructions lie in a space of meaning."""

    title = "Embedding"
    sends = f"mean of {2 * _FREQUENCIES} random Fourier features of its instructions' vectors, and their number"
    kind = "features"

    def aggregate(self, examples: Sequence[Example], instruments: Instruments) -> Aggregate:
        """Return the sum of the features and the number of texts, blank ones left out; a Document counts whole."""
        texts = [instruction(example) if example.prompt else response(example) for example in examples]
        texts = [text for text in texts if text.strip()]
        if not texts:
            return {"features": {}, "records": {}}
        total = _features(instruments.vectors(texts), instruments.bandwidth).sum(axis=0)
        sums = {f"{place:03d}": value for place, value in enumerate(total.tolist())}
        return {"features": sums, "records": {"all": float(len(texts))}}

    def find(self, aggregates: Mapping[str, Aggregate], instruments: Instruments) -> Found:
        """Return each client's squared MMD to the pool."""
        told = {client: sent for client, sent in aggregates.items() if sent["records"]}
        sizes_K = np.array([sent["records"]["all"] for sent in told.values()])
        sums_KF = np.array([list(sent["features"].values()) for sent in told.values()])
        n_all = float(sizes_K.sum())
        pool_F = sums_KF.sum(axis=0) / n_all
        squared_K = ((sums_KF / sizes_K[:, None] - pool_F) ** 2).sum(axis=1)
        spread = 1 - float((pool_F**2).sum())
        chance_K = spread * (n_all - sizes_K) / (sizes_K * max(n_all - 1, 1.0))
        highest_K = 2 * (1 - sizes_K / n_all) ** 2
        by_client = [dict(zip(told, numbers.tolist(), strict=True)) for numbers in (squared_K, chance_K, highest_K)]
        index = partial(Index, "squared MMD", "")
        return Found((index(*by_client),), {"spread": spread, "bandwidth": instruments.bandwidth})


def _features(vectors_ED: Vectors, bandwidth: float) -> Vectors:
    """Return the features [E, 2F], all of length 1."""
    width = vectors_ED.shape[1]
    frequencies_DF = rng.numpy_random("diversities", "embedding").standard_normal((width, _FREQUENCIES)) / bandwidth
    angles_EF = vectors_ED @ frequencies_DF
    return np.concatenate([np.cos(angles_EF), np.sin(angles_EF)], axis=1) / _FREQUENCIES**0.5
