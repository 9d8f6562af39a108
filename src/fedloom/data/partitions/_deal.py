"""What partitions share: client names, the check of the number of clients, tags, and draws of a Dirichlet law."""

import math
from collections.abc import Sequence
from random import Random

from fedloom.base.errors import DataError
from fedloom.contracts.examples import Example

__all__ = ["check_counts", "client_names", "dirichlet", "tag_of"]


def check_counts(partition: str, n_examples: int, n_clients: int) -> None:
    """Refuse a number of clients that is not between 1 and the number of examples."""
    if not n_clients:
        raise DataError(
            f"partition '{partition}': found clients = 0, but it deals examples to a number of clients: set clients, "
            f"1 to {n_examples}."
        )
    if not 1 <= n_clients <= n_examples:
        raise DataError(
            f"partition '{partition}': {n_examples} examples for {n_clients} clients; every client needs at least one "
            f"example: ask for 1 to {n_examples} clients."
        )


def client_names(n_clients: int) -> list[str]:
    """Return client_000, client_001, ..., with more digits where they are needed.

    >>> client_names(2)
    ['client_000', 'client_001']
    """
    digits = max(3, len(str(n_clients - 1)))
    return [f"client_{number:0{digits}d}" for number in range(n_clients)]


def tag_of(example: Example, tag: str, index: int) -> str:
    """Return a tag of the example at `index`; a missing one is refused with those present."""
    if tag not in example.tags:
        present = ", ".join(sorted(example.tags)) or "none"
        raise DataError(f"example {index} has no tag '{tag}'; present: {present}; set it in the source's `tags`.")
    return example.tags[tag]


def dirichlet(alphas: Sequence[float], rng: Random) -> list[float]:
    """Return one draw of Dirichlet(alphas), shares that sum to 1, for parameters near zero and far above one.

    Gamma variables are drawn as logarithms, log G(a) = log G(a + 1) + log(U) / a, so that small parameters do not
    underflow to a sum of zero (Marsaglia and Tsang, 2000, section 6, https://doi.org/10.1145/358407.358414).
    """
    logs = [math.log(rng.gammavariate(a + 1, 1)) + math.log(1 - rng.random()) / a for a in alphas]
    top = max(logs)
    weights = [math.exp(value - top) for value in logs]
    return [weight / sum(weights) for weight in weights]
