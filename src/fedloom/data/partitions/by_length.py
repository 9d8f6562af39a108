"""Clients of short texts and clients of long ones: contiguous quantiles of the length."""

from collections.abc import Sequence
from random import Random

from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Partition
from fedloom.data.partitions._deal import check_counts, cut, even_sizes

__all__ = ["ByLength"]


@plugin("by_length")
class ByLength(Partition):
    """Sorted by length in characters (equal lengths in their order) and cut into parts of even size.

    The first client holds the shortest texts. Nothing is drawn: `rng` is not used.
    """

    def __call__(self, examples: Sequence[Example], n_clients: int, rng: Random) -> dict[str, list[int]]:
        """Return the indices of each client; more clients than examples are refused."""
        check_counts(self.name, len(examples), n_clients)
        lengths = [len(example.text) for example in examples]
        order = sorted(range(len(examples)), key=lengths.__getitem__)
        return cut(order, even_sizes(len(examples), n_clients))

    def brings_in(self, n_clients: int) -> str:
        """Return the partition itself: with one record less every cut lies one further on."""
        return "partition.name = 'by_length', whose cuts follow from all records,"
