"""Label skew as the siblings of FedGC (arXiv 2312.05807) deal it: of each class every client gets a share of its own.

For each class, in the order of their names: shares p ~ Dirichlet(beta * 1) over the K clients; those of clients that
hold N / K examples already are zero; the rest sum to one; the shuffled class is cut in these proportions. Drawn anew
until every client has `least` examples.

Deviations: the published loop draws for ever where no draw will do (few examples, small beta). Here K * least > N is
refused at once, and draws are counted. A draw in which all that is left of the shares is zero is one that will not do.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from random import Random

from fedloom.base.errors import DataError
from fedloom.base.plugin import AtLeast, Count, Positive, plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Partition
from fedloom.data.partitions._deal import check_counts, client_names, dirichlet, tag_of

__all__ = ["LabelSkew"]


@plugin("label_skew")
class LabelSkew(Partition):
    """Clients with classes of their own, and of unequal sizes: small `beta` gives each few classes."""

    beta: Positive = 0.5
    """Concentration of each class over the clients."""
    tag: str = "label"
    """Tag of the class."""
    least: Count = 10
    """Examples that every client has."""
    redraws: AtLeast = 1000
    """Draws after which it is given up."""

    def heterogeneity(self) -> str:
        """Return the skew of the tag."""
        return f"{self.tag} skew"

    def __call__(self, examples: Sequence[Example], n_clients: int, rng: Random) -> dict[str, list[int]]:
        """Return the indices of each client; refused where no draw will do, or none of so many did."""
        check_counts(self.name, len(examples), n_clients)
        n, told = len(examples), f"{len(examples)} examples, {n_clients} clients, beta {self.beta:g}"
        if n_clients * self.least > n:
            raise DataError(
                f"partition '{self.name}': {told}: not enough for {self.least} each; lower partition.least or clients."
            )
        piles: dict[str, list[int]] = {}
        for index, example in enumerate(examples):
            piles.setdefault(tag_of(example, self.tag, index), []).append(index)
        for _ in range(self.redraws):
            parts = self._draw(piles, n, n_clients, rng)
            if parts and min(map(len, parts)) >= self.least:
                return dict(zip(client_names(n_clients), map(sorted, parts), strict=True))
        raise DataError(
            f"partition '{self.name}': {told}: no draw of {self.redraws} gave every client {self.least}; lower "
            "partition.least, or raise beta or redraws."
        )

    def _draw(self, piles: Mapping[str, list[int]], n: int, n_clients: int, rng: Random) -> list[list[int]]:
        """Return the parts of one draw; none where a class has nobody left to take it."""
        parts: list[list[int]] = [[] for _ in range(n_clients)]
        for label in sorted(piles):
            pile = rng.sample(piles[label], len(piles[label]))
            drawn = dirichlet([self.beta] * n_clients, rng)
            shares = [share * (len(part) * n_clients < n) for share, part in zip(drawn, parts, strict=True)]
            if not sum(shares):
                return []
            cuts = [int(len(pile) * done / sum(shares)) for done in accumulate(shares)]
            for part, (start, end) in zip(parts, pairwise([0, *cuts[:-1], len(pile)]), strict=True):
                part += pile[start:end]
        return parts

    def brings_in(self, n_clients: int) -> str:
        """Return "": examples are dealt by chance."""
        return ""
