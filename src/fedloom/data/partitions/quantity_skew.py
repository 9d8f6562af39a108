"""Clients of unequal size: the shares are log-normal, or drawn from a Dirichlet distribution; the content is IID."""

from collections.abc import Sequence
from random import Random
from typing import Literal

from fedloom.base.plugin import Positive, plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Partition
from fedloom.data.partitions._deal import check_counts, cut
from fedloom.data.partitions._draw import dirichlet

__all__ = ["QuantitySkew"]


@plugin("quantity_skew")
class QuantitySkew(Partition):
    """Shuffled and cut at random sizes: one example each, the rest by shares with the largest remainders rounded up.

    Shares are exp(sigma * z) with z standard normal, normalised; or Dirichlet(alpha, ..., alpha) (quantity skew of
    Li et al., 2022, https://arxiv.org/abs/2102.02079, section IV-D).

    Deviations: the first example of each client is outside the shares, so that no client is empty and none is redrawn.
    """

    law: Literal["log_normal", "dirichlet"] = "log_normal"
    sigma: Positive = 1.0
    """Of law log_normal: 0.5 is mild, 1 gives a Gini index near 0.5."""
    alpha: Positive = 0.5
    """Of law dirichlet: smaller is more unequal."""

    def __call__(self, examples: Sequence[Example], n_clients: int, rng: Random) -> dict[str, list[int]]:
        """Return the indices of each client; more clients than examples are refused."""
        check_counts(self.name, len(examples), n_clients)
        order = rng.sample(range(len(examples)), len(examples))
        spread = _apportion(len(examples) - n_clients, self._shares(n_clients, rng))
        return cut(order, [1 + size for size in spread])

    def brings_in(self, n_clients: int) -> str:
        """Return "": examples are dealt by chance."""
        return ""

    def _shares(self, n_clients: int, rng: Random) -> list[float]:
        if self.law == "dirichlet":
            return dirichlet([self.alpha] * n_clients, rng)
        weights = [rng.lognormvariate(0, self.sigma) for _ in range(n_clients)]
        return [weight / sum(weights) for weight in weights]


def _apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Return whole numbers that sum to `total`, nearest to total * shares by the largest remainders."""
    exact = [total * share for share in shares]
    sizes = [int(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda k: sizes[k] - exact[k])
    for k in by_remainder[: total - sum(sizes)]:
        sizes[k] += 1
    return sizes
