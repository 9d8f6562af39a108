"""What partitions share: client names, the check of the number of clients, and cutting a sequence into parts."""

from collections.abc import Sequence

from fedloom.base.errors import DataError
from fedloom.contracts.examples import Example

__all__ = ["by_tag", "check_counts", "client_names", "cut", "even_sizes"]


def check_counts(partition: str, n_examples: int, n_clients: int) -> None:
    """Refuse a number of clients that is not between 1 and the number of examples."""
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


def even_sizes(n_examples: int, n_clients: int) -> list[int]:
    """Return sizes that sum to `n_examples` and differ by at most one, the larger first."""
    share, rest = divmod(n_examples, n_clients)
    return [share + (number < rest) for number in range(n_clients)]


def cut(order: Sequence[int], sizes: Sequence[int]) -> dict[str, list[int]]:
    """Return consecutive parts of `order` of the given sizes, each sorted, by client name."""
    parts: dict[str, list[int]] = {}
    start = 0
    for name, size in zip(client_names(len(sizes)), sizes, strict=True):
        parts[name] = sorted(order[start : start + size])
        start += size
    return parts


def by_tag(partition: str, examples: Sequence[Example], tag: str, n_clients: int) -> dict[str, list[int]]:
    """Return the indices of each value of a tag, in the order of first appearance; 0 asks for all values."""
    if not examples:
        raise DataError(f"partition '{partition}': 0 examples; every client needs at least one.")
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(tag_of(example, tag, index), []).append(index)
    if n_clients > len(groups):
        raise DataError(
            f"partition '{partition}': the tag '{tag}' has {len(groups)} values, asked for {n_clients} clients; "
            f"ask for {len(groups)}, or for 0 to take all."
        )
    return groups


def tag_of(example: Example, tag: str, index: int) -> str:
    """Return a tag of the example at `index`; a missing one is refused with those present."""
    if tag not in example.tags:
        present = ", ".join(sorted(example.tags)) or "none"
        raise DataError(f"example {index} has no tag '{tag}'; present: {present}; set it in the source's `tags`.")
    return example.tags[tag]
