"""The contracts of what lies before and after training: each client's own data prepared, the trained model refined."""

import math
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedloom.base.errors import DataError
from fedloom.base.mean import Mean
from fedloom.base.plugin import Family
from fedloom.base.tree import Tree
from fedloom.contracts.examples import Example
from fedloom.contracts.model import Model

__all__ = ["Made", "Owner", "Preparation", "Refined", "Refinement", "Trained"]


@dataclass(frozen=True)
class Owner:
    """Where a preparation is at work: one client, alone."""

    name: str
    seed: int
    """The run's; draws are named by it, the owner and what they are for."""
    folder: Path | None
    """A place of the owner's for what is half done, such as answers of a model; None where nothing is kept."""
    public: Sequence[Example] = ()
    """The examples of the run's data that nobody owns."""
    common: Sequence[Example] = ()
    """What `for_all` made."""


@dataclass(frozen=True)
class Made:
    """What a preparation made of an owner's examples."""

    examples: Sequence[Example]
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    """What became of them, by name: made, dropped and why. It is told to the server."""
    sent: Mapping[str, int] = field(default_factory=dict[str, int])
    """Bytes that left the owner meanwhile, by what they were; empty: nothing did."""
    received: Mapping[str, int] = field(default_factory=dict[str, int])
    """Bytes that the server sent the owner for it, by what they were."""
    quality: float = 1.0
    """By what the owner's examples count beside their number under `weighting = "quality"`; several preparations' are
    multiplied. It leaves the owner only so."""

    def __post_init__(self) -> None:
        if not 0 < self.quality < math.inf:
            raise DataError(
                f"quality: found {self.quality} of what a preparation made, allowed is a finite number above 0; what "
                "is not to count is left out of the examples."
            )


class Preparation(Family):
    """What each client does with its training examples before training: examples to examples."""

    folder = "fedloom.runs.preparations"

    @abstractmethod
    def __call__(self, examples: Sequence[Example], owner: Owner) -> Made:
        """Return the examples that are trained on; what is drawn depends on seed, owner and examples alone."""

    def for_all(self, owner: Owner) -> Made | None:
        """Return what is made once for all clients, without anybody's data; None where each makes its own.

        The owner is the server, whose name is "": what is made reaches each client as `common`.
        """
        return None

    def identity(self) -> str:
        """Return what the examples made depend on besides settings and examples, such as the content of a file."""
        return ""

    def public_texts(self) -> Mapping[str, str]:
        """Return public texts, by id, that what is made is modelled on: none of them may be measured by."""
        return {}

    def trained_on_sets(self) -> Sequence[str]:
        """Return the data sets that whoever judges what it makes was trained on."""
        return ()

    def public_card(self) -> Mapping[str, Any]:
        """Return what the partition card says of those texts: JSON values; {} where there are none."""
        return {}

    def brings_in(self) -> str:
        """Return the setting by which one example decides about several prepared ones; "" if there is none.

        Privacy of examples refuses it, and a preparation that does not say.
        """
        return f"prepare.name = '{self.name}', a preparation that says nothing of it (brings_in),"


@dataclass(frozen=True)
class Trained:
    """What a refinement starts from: all that the server has."""

    model: Model
    task: Any
    """The run's task, a `contracts.federated.Task`."""
    params: Tree
    """The shared parameters by name, on the model's device; they are not to be changed in place."""
    round: int
    """Rounds trained so far."""
    seed: int
    folder: Path
    """A place for what is half done; gone on with after a stop, it is as it was left."""
    public: Sequence[Example] = ()
    """The examples of the run's data that nobody owns."""


@dataclass(frozen=True)
class Refined:
    """Parameters that take the place of the trained ones."""

    params: Tree
    """The same names and shapes."""
    counts: Mapping[str, float] = field(default_factory=dict[str, float])
    """What was done, by name: numbers for the metrics."""
    sent: Mapping[str, int] = field(default_factory=dict[str, int])
    """Bytes that left the server for others than the clients, by what they were; empty: nothing did."""
    scores: Mapping[str, Mean] = field(default_factory=dict[str, Mean])
    """What was measured, by name: averages, which no cycle adds up."""


class Refinement(Family):
    """What the server does with the trained model, between rounds or after the last one, without clients' data.

    Of a private run it sees what the mechanism has let out and nothing else, so that no epsilon changes.
    """

    folder = "fedloom.runs.refinements"

    @abstractmethod
    def __call__(self, trained: Trained) -> Refined:
        """Return the refined parameters; made again from the same state and answers they are the same, bit for bit."""

    def require(self, model: Model, task: Any, shared: Collection[str]) -> None:
        """Refuse, before anything is trained, what would stop it: parameters kept from it, a file, a task."""
        self.identity()

    def identity(self) -> str:
        """Return what the refined parameters depend on besides settings and state, such as the content of a file."""
        return ""

    def public_texts(self) -> Mapping[str, str]:
        """Return public texts, by id, that are learnt from or shown: none of them may be measured by."""
        return {}

    def trained_on_sets(self) -> Sequence[str]:
        """Return the data sets that whoever judges what it makes was trained on."""
        return ()
