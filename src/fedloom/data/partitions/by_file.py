"""One client per file: for data that comes as a folder of files, one from each owner."""

from collections.abc import Sequence
from random import Random

from fedloom.base.errors import DataError
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Partition
from fedloom.data.partitions._deal import by_tag

__all__ = ["ByFile"]


@plugin("by_file")
class ByFile(Partition):
    """One client per value of the tag `file`, which the source `file` sets where it reads several; nothing is drawn.

    Only a number of clients equal to the number of files, or 0 for all, is accepted.
    """

    def __call__(self, examples: Sequence[Example], n_clients: int, rng: Random) -> dict[str, list[int]]:
        """Return the indices of each client; a missing tag or a wrong number of clients is refused."""
        groups = by_tag(self.name, examples, "file", n_clients)
        if n_clients not in (0, len(groups)):
            raise DataError(
                f"partition '{self.name}': found {len(groups)} files, asked for {n_clients} clients; "
                f"ask for {len(groups)}, or for 0 to take all."
            )
        return groups

    def brings_in(self, n_clients: int) -> str:
        """Return "": a file is an owner."""
        return ""
