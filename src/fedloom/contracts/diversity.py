"""The contract of the diversities of a federation: what a client tells of its data, and what the server makes of it.

Each axis has two halves. The client half sees the client's examples and returns an `Aggregate`, all that leaves it; the
server half sees aggregates alone. Aggregates add up: that of several clients' data together is the sum of theirs, so
the server knows the pool as if one owned it.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedloom.base.plugin import Family
from fedloom.contracts.examples import Example

__all__ = ["Aggregate", "Diversity", "Found", "Index", "Instruments", "Vectors"]

Aggregate = Mapping[str, Mapping[str, float]]
"""Tables by name, in each of them counts or sums by bin; a bin that is left out is 0."""

Vectors = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Instruments:
    """What clients measure with, the same at all of them; none of it depends on any client's texts."""

    language: Callable[[Example], str]
    """Gives the language of an example."""
    length: Callable[[str], int]
    """Gives the length of a text in `length_unit`."""
    length_unit: str
    vectors: Callable[[Sequence[str]], Vectors]
    """Gives a vector [E, D] for each of E texts."""
    bandwidth: float
    """Distance of two vectors that counts as usual."""
    ifd: Callable[[Sequence[Example]], Sequence[float]] | None = None
    """Gives the instruction-following difficulty of each example, NaN where it has none; None without a model."""
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    """What was measured with, in words, by axis."""


@dataclass(frozen=True)
class Index:
    """One number per client that tells how unlike the others it is; 0 where it is like them."""

    label: str
    unit: str
    values: Mapping[str, float]
    """By client; who has nothing to be measured is left out."""
    chance: Mapping[str, float] = field(default_factory=dict[str, float])
    """What to expect if the client's records were drawn from the pool at random: few records never look like it."""
    highest: Mapping[str, float] = field(default_factory=dict[str, float])
    """The largest value possible with the client's share of the pool; empty where there is no bound."""


@dataclass(frozen=True)
class Found:
    """What the server finds on one axis."""

    indices: tuple[Index, ...]
    figures: Mapping[str, float]
    """Numbers of the whole federation by name."""


class Diversity(Family):
    """One axis on which the clients of a federation differ."""

    folder = "fedloom.diversity.axes"
    title: ClassVar[str]
    sends: ClassVar[str]
    """What leaves a client, in words."""
    kind: ClassVar[Literal["sizes", "categories", "numbers", "features"]]
    """What the bins of an aggregate are: nothing but a count, unordered, places on a scale, or coordinates."""

    @abstractmethod
    def aggregate(self, examples: Sequence[Example], instruments: Instruments) -> Aggregate:
        """Return all that the client tells of its examples; tables are empty where nothing can be measured."""

    @abstractmethod
    def find(self, aggregates: Mapping[str, Aggregate], instruments: Instruments) -> Found:
        """Return indices and figures from the aggregates by client, at least one of which is not empty."""

    def lacking(self, instruments: Instruments) -> str:
        """Return why the axis cannot be measured with these instruments; "" if it can."""
        return ""
