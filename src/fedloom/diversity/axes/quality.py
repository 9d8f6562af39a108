"""Quality: the Wasserstein-1 distance of each client's distribution of IFD to that of all records.

IFD, the instruction-following difficulty (Li et al. 2023, https://arxiv.org/abs/2308.12032), is the mean loss of an
answer's tokens after its instruction over that of the answer alone (`fedloom.evaluation.difficulty`), by the run's own
model before tuning; it is sorted into bins of width 0.02, the last of which holds all above 3.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fedloom.base.plugin import plugin
from fedloom.contracts.diversity import Aggregate, Diversity, Found, Instruments
from fedloom.contracts.examples import Example
from fedloom.diversity.axes._against_pool import counts_of, distance_index
from fedloom.diversity.axes._bins import by_ratio

__all__ = ["Quality"]


@plugin("quality")
class Quality(Diversity):
    """Instruction-following difficulty of the answers."""

    title = "Quality"
    sends = "number of records in each bin of IFD"
    kind = "numbers"

    def aggregate(self, examples: Sequence[Example], instruments: Instruments) -> Aggregate:
        """Return the number of examples by IFD; those that have none (an empty answer, no instruction) are left out."""
        found = instruments.ifd(examples) if instruments.ifd else ()
        return {"ifd": by_ratio(ratio for ratio in found if math.isfinite(ratio))}

    def find(self, aggregates: Mapping[str, Aggregate], instruments: Instruments) -> Found:
        """Return each client's distance to the pool; the number, mean and standard deviation of all."""
        counts = counts_of(aggregates, "ifd", float)
        places_B, weight_B = np.array([float(name) for name in counts.bins]), counts.pool_B
        mean = float(np.average(places_B, weights=weight_B))
        spread = float(np.average((places_B - mean) ** 2, weights=weight_B)) ** 0.5
        figures = {"records": float(weight_B.sum()), "mean": mean, "standard_deviation": spread}
        return Found((distance_index(counts, "Wasserstein-1", ""),), figures)

    def lacking(self, instruments: Instruments) -> str:
        """Return why there is no IFD."""
        return "" if instruments.ifd else "it needs the run's model; leave out --no-model"
