"""Natural clients: one for each value of a tag, such as a user, a hospital or a file; nothing is drawn."""

from collections.abc import Sequence
from random import Random
from typing import Literal

from fedloom.base.errors import DataError
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Partition
from fedloom.data.partitions._deal import tag_of

__all__ = ["ByFile", "ByKey"]


@plugin("by_key")
class ByKey(Partition):
    """One client per value of `tag`, called by it, in the order of first appearance; nothing is drawn.

    The number of clients must be 0 (all values) or the number of values. With keep = "largest" it may be smaller: the
    values with the most examples become clients (of equal ones the first), in their order of appearance, and the
    examples of all others are left out. That is the one exception to the exact cover; the partition card counts them.
    """

    tag: str = "client"
    """Tag by whose values clients are made."""
    keep: Literal["all", "largest"] = "all"
    """Whether all values become clients, or those with the most examples, as many as `clients` says."""

    def heterogeneity(self) -> str:
        """Return "natural" for owners, and for another tag, such as a domain or a language, its skew."""
        return "natural" if self.tag == "client" else f"{self.tag} skew"

    def __call__(self, examples: Sequence[Example], n_clients: int, rng: Random) -> dict[str, list[int]]:
        """Return the indices of each client; a missing tag or a wrong number of clients is refused."""
        groups = _by_tag(self.name, examples, self.tag, n_clients)
        if n_clients in (0, len(groups)):
            return groups
        if self.keep == "all":
            raise DataError(
                f"partition '{self.name}': the tag '{self.tag}' has {len(groups)} values, asked for {n_clients} "
                f'clients; ask for {len(groups)}, for 0 to take all, or set keep = "largest".'
            )
        largest = set(sorted(groups, key=lambda key: -len(groups[key]))[:n_clients])
        return {key: indices for key, indices in groups.items() if key in largest}

    def brings_in(self, n_clients: int) -> str:
        """Return `keep` if it chooses: where one of the largest leaves or shrinks, the next one takes its place."""
        return f'partition.keep = "largest" with clients = {n_clients}' if self.keep == "largest" and n_clients else ""


@plugin("by_file")
class ByFile(Partition):
    """One client per value of the tag `file`, which the source `file` sets where it reads several; nothing is drawn.

    Only a number of clients equal to the number of files, or 0 for all, is accepted.
    """

    def heterogeneity(self) -> str:
        """Return "natural": a file is an owner's."""
        return "natural"

    def __call__(self, examples: Sequence[Example], n_clients: int, rng: Random) -> dict[str, list[int]]:
        """Return the indices of each client; a missing tag or a wrong number of clients is refused."""
        groups = _by_tag(self.name, examples, "file", n_clients)
        if n_clients not in (0, len(groups)):
            raise DataError(
                f"partition '{self.name}': found {len(groups)} files, asked for {n_clients} clients; "
                f"ask for {len(groups)}, or for 0 to take all."
            )
        return groups

    def brings_in(self, n_clients: int) -> str:
        """Return "": a file is an owner."""
        return ""


def _by_tag(partition: str, examples: Sequence[Example], tag: str, n_clients: int) -> dict[str, list[int]]:
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
