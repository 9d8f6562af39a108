"""The contract of generators: samples of a class, drawn from what is public and, where a client guides, from its own.

One record for every kind of example: a picture, a row of a table or a conversation is asked for alike.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from fedloom.base.plugin import Family
from fedloom.contracts.examples import Example

__all__ = ["ORIGIN", "Generated", "Generator", "Guidance", "Place", "Prompter", "Request", "is_generated"]

ORIGIN = "origin"
"""Tag of a generated example, whose value is `generated`."""
Guidance = Literal["prompt", "real", "mixed"]


def is_generated(example: Example) -> bool:
    """Return whether an example was generated."""
    return example.tags.get(ORIGIN) == "generated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of a generator: one sample."""

    label: str
    """The class."""
    prompt: str
    """The words that describe it."""
    seed: int
    """What all that is drawn for it depends on."""
    guide: Example | None = None
    """A private example of the class that it starts from; None: the words alone."""
    strength: float = 1.0
    """How far from the guide it goes: 0 stays there, 1 leaves nothing of it."""


@dataclass(frozen=True)
class Place:
    """Where a generator is at work."""

    public: Sequence[Example] = ()
    """The examples of the data that nobody owns, on which it may be fitted."""
    folder: Path | None = None
    """For what is half done; None where nothing is kept."""


@dataclass(frozen=True)
class Generated:
    """Samples in the order of their requests, and what they cost besides time."""

    samples: Sequence[Example | None]
    """None where nothing came."""
    tokens: int = 0
    """Of prompts and completions, where there are any."""
    sent: Mapping[str, int] = field(default_factory=dict[str, int])
    """Bytes that left this machine for the generator, by what they were."""


class Generator(Family):
    """Who makes samples of a class."""

    folder = "fedloom.synthesis.generators"
    makes: ClassVar[tuple[type[Any], ...]] = ()
    """The kinds of examples."""
    text_guided: ClassVar[bool] = False
    """Whether the words of a prompt decide about the sample, and not the class alone."""
    data_guided: ClassVar[bool] = False
    """Whether it can start from a private example."""

    @abstractmethod
    def __call__(self, requests: Sequence[Request], place: Place) -> Generated:
        """Return a sample for each request; what is drawn depends on the requests' seeds alone.

        Raises DataError where it has not so many of a class, or does not know it.
        """

    @abstractmethod
    def identity(self) -> str:
        """Return what samples depend on besides settings, requests and public examples, such as a model's files."""

    def remote(self) -> str:
        """Return the host that requests go to, where that is another machine; "" where they stay on this one."""
        return ""

    def model_bytes(self, place: Place) -> int:
        """Return how large its model is; 0 where that is not known."""
        return 0


class Prompter(Family):
    """How samples of a class are put into words."""

    folder = "fedloom.synthesis.prompters"

    @abstractmethod
    def __call__(self, label: str, count: int, seed: int, place: Place) -> list[str]:
        """Return so many prompts for a class; what is drawn depends on the seed alone."""

    def identity(self) -> str:
        """Return what prompts depend on besides settings; "" if nothing."""
        return ""
