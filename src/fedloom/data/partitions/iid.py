"""Examples dealt at random: every client holds a sample of the whole."""

from collections.abc import Sequence
from random import Random

from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Partition
from fedloom.data.partitions._deal import check_counts, cut, even_sizes

__all__ = ["Iid"]


@plugin("iid")
class Iid(Partition):
    """Shuffled and cut into parts whose sizes differ by at most one."""

    def __call__(self, examples: Sequence[Example], n_clients: int, rng: Random) -> dict[str, list[int]]:
        """Return the indices of each client; more clients than examples are refused."""
        check_counts(self.name, len(examples), n_clients)
        order = rng.sample(range(len(examples)), len(examples))
        return cut(order, even_sizes(len(examples), n_clients))

    def brings_in(self, n_clients: int) -> str:
        """Return "": examples are dealt by chance."""
        return ""
