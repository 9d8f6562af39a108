"""The contracts of data: where examples come from, and who owns them."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, ClassVar

from fedloom.base.plugin import Family
from fedloom.contracts.examples import Example

__all__ = ["Partition", "Source"]


class Source(Family):
    """A data set: examples by split.

    Splits are called `train`, `validation` and `test`; a source may leave out the last two. A split `public` holds
    examples that nobody owns and nobody is measured by: generators are fitted on it. Records that belong to a natural
    client carry its name in the tag `client`.
    """

    folder = "fedloom.data.sources"
    also = ("fedloom.people.adapter.sources",)
    made_up: ClassVar[bool] = False
    """Whether all that it holds is invented, so that there are no terms of use."""

    @abstractmethod
    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the examples of each split, in a fixed order."""

    def truth(self) -> Mapping[str, Any]:
        """Return what a simulation knows of its data and no component may, as a table for truth.json; else nothing.

        By kind and client, of records by `text_id`: which answers are wrong, say. It is in no record's tags.
        """
        return {}

    def origins(self) -> tuple[str, ...]:
        """Return the names that the data are known by, such as a path or a name on a hub; empty for what is made up."""
        return ()

    def unit(self, example: Example) -> str:
        """Return what a generated example is about, a word that is in no public text; "" for what is not generated.

        Its questions are worded alike whatever they ask about: likeness tells nothing of what is known of it.
        """
        return ""

    def brings_in(self) -> str:
        """Return the setting by which a record that leaves lets others in, such as a limit; "" if there is none.

        With it, data sets that differ in one record of the files differ in several of the training data, which no
        mechanism accounts for: privacy refuses it, and a source that does not say.
        """
        return f"data.name = '{self.name}', a source that says nothing of it (brings_in),"


class Partition(Family):
    """An exact cover of examples by clients: every index goes to one client, and no client is empty."""

    folder = "fedloom.data.partitions"

    @abstractmethod
    def __call__(self, examples: Sequence[Example], n_clients: int, rng: Random) -> dict[str, list[int]]:
        """Return the indices of each client by its name, in client order."""

    def heterogeneity(self) -> str:
        """Return in what clients differ, for the card: "label skew", "natural" and so on; "none" if by chance alone."""
        return "not told"

    def brings_in(self, n_clients: int) -> str:
        """Return the setting by which a record or an owner that leaves lets others in; "" if there is none."""
        return f"partition.name = '{self.name}', a partition that says nothing of it (brings_in),"
