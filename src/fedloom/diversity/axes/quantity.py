"""Quantity: how many records each client has.

The index of client k is |n_k K / N - 1|, its distance from the mean size in mean sizes, N records over K clients. Of
the federation: Gini = sum_i sum_j |n_i - n_j| / (2 K N), the effective number of clients N^2 / sum n^2 (the inverse of
Herfindahl's index), mean, standard deviation and quantiles (linear between ranks).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fedloom.base.plugin import plugin
from fedloom.contracts.diversity import Aggregate, Diversity, Found, Index, Instruments
from fedloom.contracts.examples import Example
from fedloom.data.card import effective_number, gini

__all__ = ["Quantity"]

_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@plugin("quantity")
class Quantity(Diversity):
    """The number of records."""

    title = "Quantity"
    sends = "number of records"
    kind = "sizes"

    def aggregate(self, examples: Sequence[Example], instruments: Instruments) -> Aggregate:
        """Return the number of examples."""
        return {"records": {"all": float(len(examples))}}

    def find(self, aggregates: Mapping[str, Aggregate], instruments: Instruments) -> Found:
        """Return each client's distance from the mean size; Gini, effective number and quantiles."""
        sizes = np.array([aggregate["records"]["all"] for aggregate in aggregates.values()])
        total, n_clients = float(sizes.sum()), len(sizes)
        figures = {
            "gini": gini(sizes.tolist()),
            "effective_clients": effective_number(sizes.tolist()),
            "mean": total / n_clients,
            "standard_deviation": float(sizes.std()),
        }
        figures |= {f"quantile_{q:g}": float(np.quantile(sizes, q)) for q in _QUANTILES}
        values = {client: abs(float(n) * n_clients / total - 1) for client, n in zip(aggregates, sizes, strict=True)}
        return Found((Index("gap to the mean size", "mean sizes", values),), figures)
