"""Partitions that put the examples into an order and cut it into parts: sizes and order are what they differ in."""

from collections.abc import Sequence
from itertools import islice
from random import Random
from typing import Literal

from fedloom.base.plugin import Positive, plugin
from fedloom.base.shares import by_largest_remainder
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Partition
from fedloom.data.partitions._deal import check_counts, client_names, dirichlet

__all__ = ["ByLength", "Iid", "QuantitySkew"]


class Cut(Partition):
    """Shuffled and cut into parts whose sizes differ by at most one."""

    def __call__(self, examples: Sequence[Example], n_clients: int, rng: Random) -> dict[str, list[int]]:
        """Return the indices of each client; more clients than examples are refused."""
        check_counts(self.name, len(examples), n_clients)
        places = iter(self.order(examples, rng))
        sizes = self.sizes(len(examples), n_clients, rng)
        return {name: sorted(islice(places, size)) for name, size in zip(client_names(n_clients), sizes, strict=True)}

    def brings_in(self, n_clients: int) -> str:
        """Return "": examples are dealt by chance."""
        return ""

    def order(self, examples: Sequence[Example], rng: Random) -> list[int]:
        """Return all indices in the order in which they are dealt."""
        return rng.sample(range(len(examples)), len(examples))

    def sizes(self, n_examples: int, n_clients: int, rng: Random) -> list[int]:
        """Return sizes that sum to `n_examples` and differ by at most one, the larger first."""
        share, rest = divmod(n_examples, n_clients)
        return [share + (number < rest) for number in range(n_clients)]


@plugin("iid")
class Iid(Cut):
    """Every client holds a sample of the whole."""

    def heterogeneity(self) -> str:
        """Return "none"."""
        return "none"


@plugin("by_length")
class ByLength(Cut):
    """Sorted by length in characters (equal lengths in their order) and cut into parts of even size.

    The first client holds the shortest texts. Nothing is drawn: `rng` is not used.
    """

    def heterogeneity(self) -> str:
        """Return that of lengths."""
        return "length skew"

    def brings_in(self, n_clients: int) -> str:
        """Return the partition itself: with one record less every cut lies one further on."""
        return "partition.name = 'by_length', whose cuts follow from all records,"

    def order(self, examples: Sequence[Example], rng: Random) -> list[int]:
        """Return the indices, those of the shortest texts first."""
        return sorted(range(len(examples)), key=lambda index: len(examples[index].text))


@plugin("quantity_skew")
class QuantitySkew(Cut):
    """Shuffled and cut at random sizes: one example each, the rest by shares with the largest remainders rounded up.

    Shares are exp(sigma * z) with z standard normal, normalised; or Dirichlet(alpha, ..., alpha) (quantity skew of
    Li et al., 2022, https://arxiv.org/abs/2102.02079, section IV-D).

    Deviations: the first example of each client is outside the shares, so that no client is empty and none is redrawn.
    """

    law: Literal["log_normal", "dirichlet"] = "log_normal"
    """How sizes are drawn."""
    sigma: Positive = 1.0
    """Of law log_normal: 0.5 is mild, 1 gives a Gini index near 0.5."""
    alpha: Positive = 0.5
    """Of law dirichlet: smaller is more unequal."""

    def heterogeneity(self) -> str:
        """Return that of sizes."""
        return "quantity skew"

    def sizes(self, n_examples: int, n_clients: int, rng: Random) -> list[int]:
        """Return sizes of at least one that sum to `n_examples`."""
        rest = n_examples - n_clients
        return [
            1 + size for size in by_largest_remainder(rest, [rest * share for share in self._shares(n_clients, rng)])
        ]

    def _shares(self, n_clients: int, rng: Random) -> list[float]:
        if self.law == "dirichlet":
            return dirichlet([self.alpha] * n_clients, rng)
        weights = [rng.lognormvariate(0, self.sigma) for _ in range(n_clients)]
        return [weight / sum(weights) for weight in weights]
