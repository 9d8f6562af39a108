"""Language: the Jensen-Shannon divergence (base 2) of each client's mixture of languages to that of all records.

The labels are those of the tag `language` where the data have it, else those of a language identifier.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from fedloom.base.plugin import plugin
from fedloom.contracts.diversity import Aggregate, Diversity, Found, Instruments
from fedloom.contracts.examples import Example
from fedloom.diversity.axes._against_pool import counts_of, divergence_index

__all__ = ["Language"]


@plugin("language")
class Language(Diversity):
    """Records per language."""

    title = "Language"
    sends = "number of records in each language"
    kind = "categories"

    def aggregate(self, examples: Sequence[Example], instruments: Instruments) -> Aggregate:
        """Return the number of examples by language."""
        return {"languages": Counter(instruments.language(example) for example in examples)}

    def find(self, aggregates: Mapping[str, Aggregate], instruments: Instruments) -> Found:
        """Return each client's divergence to the pool; the number of languages and the share of the largest."""
        counts = counts_of(aggregates, "languages")
        pool_B = counts.pool_B
        figures = {"languages": float(len(pool_B)), "largest_share": float(pool_B.max() / pool_B.sum())}
        return Found((divergence_index(counts, "Jensen-Shannon divergence"),), figures)
