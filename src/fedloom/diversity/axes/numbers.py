"""Axes of numbers: the Wasserstein-1 distances of each client's distribution to that of all records.

Every client sorts into the same fixed bins, which no data decide; a bin is named by its middle, the place that
distances are measured at.

Length: that of instructions and of responses, one bin for each number up to 12 and eight to each doubling above.

Quality: IFD, the instruction-following difficulty (Li et al. 2023, https://arxiv.org/abs/2308.12032), is the mean loss
of an answer's tokens after its instruction over that of the answer alone (`fedloom.evaluation.difficulty`), by the
run's own model before tuning; it is sorted into bins of width 0.02, the last of which holds all above 3.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fedloom.base.plugin import plugin
from fedloom.contracts.diversity import Aggregate, Diversity, Found, Instruments
from fedloom.contracts.examples import Example
from fedloom.data.example_texts import instruction, response
from fedloom.diversity.axes._against_pool import Counts, counts_of, distance_index

__all__ = ["Length", "Quality", "by_length", "by_ratio"]

_PARTS = ("instruction", "response")
_RATIO_STEP, _RATIO_BINS = 0.02, 150  # up to 3; what lies above counts in the last bin
# 0, 1, 2, ... and above 12 eight edges to each doubling, up to 2^20: at most 9 % wide.
_EDGES = sorted({*range(12), *(round(2 ** (k / 8)) for k in range(161))})


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
        mean = _mean(counts)
        figures = {
            "records": float(counts.pool_B.sum()),
            "mean": mean,
            "standard_deviation": _mean(counts, mean) ** 0.5,
        }
        return Found((distance_index(counts, "Wasserstein-1", ""),), figures)

    def lacking(self, instruments: Instruments) -> str:
        """Return why there is no IFD."""
        return "" if instruments.ifd else "it needs the run's model; leave out --no-model"


def _mean(counts: Counts, about: float | None = None) -> float:
    """Return the mean over the pool, or that of the squared distance from a place."""
    places_B = np.array([float(name) for name in counts.bins])
    return float(np.average(places_B if about is None else (places_B - about) ** 2, weights=counts.pool_B))


def by_length(lengths: Iterable[int]) -> Counter[str]:
    """Return how many whole numbers lie in each bin.

    >>> by_length([3, 3, 100])
    Counter({'3': 2, '97': 1})
    """
    return Counter(_length_bin(length) for length in lengths)


def _length_bin(length: int) -> str:
    at = min(bisect_right(_EDGES, length) - 1, len(_EDGES) - 2)
    return f"{(_EDGES[at] + _EDGES[at + 1] - 1) / 2:.10g}"


def by_ratio(ratios: Iterable[float]) -> Counter[str]:
    """Return how many ratios lie in each bin of width 0.02 from 0 to 3.

    >>> by_ratio([0.51, 7.0])
    Counter({'0.51': 1, '2.99': 1})
    """
    return Counter(_ratio_bin(ratio) for ratio in ratios)


def _ratio_bin(ratio: float) -> str:
    at = min(int(ratio / _RATIO_STEP), _RATIO_BINS - 1)
    return f"{(at + 0.5) * _RATIO_STEP:.10g}"
