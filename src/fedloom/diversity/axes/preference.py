"""Preference: how often the chosen answer is the longer, the more list-like or the more marked-up one.

The rate of client k is more / (more + less) over its pairs; pairs that do not differ say nothing. The index is the
distance of that rate to the rate over all pairs. Agreement is the probability that two different clients, on a pair
that differs, want the same: the mean of p q + (1 - p) (1 - q) over pairs of clients with rates p and q.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fedloom.base.plugin import plugin
from fedloom.contracts.diversity import Aggregate, Diversity, Found, Index, Instruments
from fedloom.contracts.examples import Example, Preference
from fedloom.diversity.axes._against_pool import counts_of, gap_index

__all__ = ["Preferences"]

_LIST_LINE = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s+", re.MULTILINE)
_MARKUP = re.compile(r"\*\*|`+|^#+ ", re.MULTILINE)

_STYLES: Mapping[str, Callable[[str], int]] = {
    "list-like": lambda text: len(_LIST_LINE.findall(text)),
    "marked-up": lambda text: len(_MARKUP.findall(text)),
}


@plugin("preference")
class Preferences(Diversity):
    """What the chosen answers have more of than the rejected ones."""

    title = "Preference"
    sends = "number of pairs whose chosen answer is longer, as long or shorter, and so for list lines and markup"
    kind = "categories"

    def aggregate(self, examples: Sequence[Example], instruments: Instruments) -> Aggregate:
        """Return the number of pairs by how the chosen answer compares; other examples are left out."""
        pairs = [example for example in examples if isinstance(example, Preference)]
        traits = {"longer": instruments.length, **_STYLES}
        return {
            trait: Counter(_compared(measure(pair.chosen), measure(pair.rejected)) for pair in pairs)
            for trait, measure in traits.items()
        }

    def find(self, aggregates: Mapping[str, Aggregate], instruments: Instruments) -> Found:
        """Return each client's distance to the rate of all; rates, agreement, and the share of pairs that differ."""
        indices: list[Index] = []
        figures: dict[str, float] = {}
        for trait in ("longer", *_STYLES):
            differing = {client: {trait: _without_same(sent[trait])} for client, sent in aggregates.items()}
            counts = counts_of(differing, trait)
            if not counts.clients:
                continue
            more_K = counts.counts_KB[:, counts.bins.index("more")] if "more" in counts.bins else 0.0 * counts.share_K
            n_pairs = sum(sum(sent[trait].values()) for sent in aggregates.values())
            figures[f"rate_{trait}"] = float(more_K.sum() / counts.counts_KB.sum())
            figures[f"differing_{trait}"] = float(counts.counts_KB.sum() / n_pairs)
            if len(counts.clients) > 1:
                figures[f"agreement_{trait}"] = _agreement(more_K / counts.counts_KB.sum(axis=1))
            indices.append(gap_index(counts, f"gap of rates, {trait}"))
        return Found(tuple(indices), figures)


def _compared(chosen: int, rejected: int) -> str:
    return "same" if chosen == rejected else "more" if chosen > rejected else "less"


def _without_same(table: Mapping[str, float]) -> dict[str, float]:
    return {name: count for name, count in table.items() if name != "same"}


def _agreement(rate_K: np.ndarray) -> float:
    """Return the mean of p q + (1 - p) (1 - q) over pairs of different clients, from sums."""
    both = sum(float(part_K.sum() ** 2 - (part_K**2).sum()) for part_K in (rate_K, 1 - rate_K))
    return both / (len(rate_K) * (len(rate_K) - 1))
