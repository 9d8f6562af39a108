"""Length: the Wasserstein-1 distances of each client's lengths of instructions and of responses to those of all.

Lengths are sorted into fixed bins, one for each number up to 12 and eight to each doubling above.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fedloom.base.plugin import plugin
from fedloom.contracts.diversity import Aggregate, Diversity, Found, Instruments
from fedloom.contracts.examples import Example
from fedloom.data.example_texts import instruction, response
from fedloom.diversity.axes._against_pool import Counts, counts_of, distance_index
from fedloom.diversity.axes._bins import by_length

__all__ = ["Length"]

_PARTS = ("instruction", "response")


@plugin("length")
class Length(Diversity):
    """Lengths of instructions and responses."""

    title = "Length"
    sends = "number of records in each bin of the length of instructions, and of responses"
    kind = "numbers"

    def aggregate(self, examples: Sequence[Example], instruments: Instruments) -> Aggregate:
        """Return the number of examples by length of each part; a Document has a response alone."""
        asked = [example for example in examples if example.prompt]
        return {
            "instruction": by_length(instruments.length(instruction(example)) for example in asked),
            "response": by_length(instruments.length(response(example)) for example in examples),
        }

    def find(self, aggregates: Mapping[str, Aggregate], instruments: Instruments) -> Found:
        """Return each client's distances to the pool; the mean lengths."""
        parts = {part: counts_of(aggregates, part, float) for part in _PARTS}
        told = {part: counts for part, counts in parts.items() if counts.clients}
        label, unit = "Wasserstein-1", instruments.length_unit
        indices = tuple(distance_index(counts, f"{label}, {part}", unit) for part, counts in told.items())
        return Found(indices, {f"mean_{part}": _mean(counts) for part, counts in told.items()})


def _mean(counts: Counts) -> float:
    return float(np.average([float(name) for name in counts.bins], weights=counts.pool_B))
