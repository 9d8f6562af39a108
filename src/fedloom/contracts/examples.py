"""The examples that data sources yield and tasks consume: Chat, Preference, Document, and any class like them.

An example is its content and tags. Tags say what is known of it without reading it (`client`, `domain`, `topic`,
`language`, `source`, `fact`, ...); partitions and per-group scores read them, training never does. What else the
package asks of an example is in `Example`, so that a new kind (a picture, a row of a table) is a frozen dataclass with
these members and nothing else has to know of it but its source and its task.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar

from fedloom.base.errors import DataError

__all__ = [
    "Chat",
    "Document",
    "Example",
    "Preference",
    "Role",
    "Shown",
    "Turn",
    "Unasked",
    "Wordless",
    "chat",
    "tagged",
    "text_id",
]

Role = Literal["system", "user", "assistant", "tool"]


class Example(Protocol):
    """What is asked of every kind of example; its `repr` names all of its content, for hashes."""

    @property
    def tags(self) -> Mapping[str, str]:
        """What is known of it without reading it."""
        ...

    @property
    def key(self) -> str:
        """The text by which two examples are one question, of which only one side of a hold-out may know."""
        ...

    @property
    def prompt(self) -> tuple["Turn", ...]:
        """What is asked; empty where nothing is."""
        ...

    @property
    def reference(self) -> str:
        """What a prediction is held against; "" where there is nothing."""
        ...

    @property
    def text(self) -> str:
        """All that is said in it, for lengths and languages; "" where it is no text."""
        ...


class Unasked:
    """What a kind of example inherits that asks nothing and has nothing to be held against."""

    __slots__ = ()

    @property
    def prompt(self) -> tuple["Turn", ...]:
        """Nothing."""
        return ()

    @property
    def reference(self) -> str:
        """Nothing."""
        return ""


class Wordless(Unasked):
    """What a kind of example inherits that has no text either."""

    __slots__ = ()

    @property
    def text(self) -> str:
        """Nothing."""
        return ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Role
    text: str

    @property
    def learnt(self) -> bool:
        """Whether it is learnt where it is an answer."""
        return True


class Shown(Turn):
    """An answer that is read and not learnt, as records say of it with `weight` or `train`."""

    __slots__ = ()

    @property
    def learnt(self) -> bool:
        """False."""
        return False


def _lines(turns: Sequence[Turn]) -> str:
    return "\n".join(turn.text for turn in turns)


_NEXT: Mapping[str, tuple[str, ...]] = {
    "nobody": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),  # what tools say is read as a user's turn is
    "tool": ("assistant", "tool"),
}


def _check_turns(turns: Sequence[Turn], last: Role) -> None:
    spoken = turns[1:] if turns and turns[0].role == "system" else turns
    before = "nobody"
    for index, turn in enumerate(spoken):
        if turn.role not in _NEXT[before]:
            raise DataError(
                f"turn {index} has role '{turn.role}', allowed is '{_NEXT[before][0]}': user and assistant alternate."
            )
        before = turn.role
    if not spoken or spoken[-1].role != last:
        raise DataError(f"a conversation of {len(turns)} turns must end with a turn of role '{last}'.")


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation that ends with an answer; an instruction with its response is one of two turns.

    A system turn may come first; then user and assistant alternate, and tools may speak in a user's place. Assistant
    turns are learnt from, but `Shown` ones.
    """

    turns: tuple[Turn, ...]
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        _check_turns(self.turns, "assistant")

    @property
    def prompt(self) -> tuple[Turn, ...]:
        """All turns before the last answer."""
        return self.turns[:-1]

    @property
    def reference(self) -> str:
        """The last answer."""
        return self.turns[-1].text

    @property
    def text(self) -> str:
        """All turns, each on lines of its own."""
        return _lines(self.turns)

    @property
    def key(self) -> str:
        """All of it."""
        return self.text


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt with a chosen and a rejected answer."""

    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        _check_turns(self.prompt, "user")

    @property
    def reference(self) -> str:
        """The chosen answer."""
        return self.chosen

    @property
    def text(self) -> str:
        """The prompt and both answers, each on lines of its own."""
        return "\n".join((_lines(self.prompt), self.chosen, self.rejected))

    @property
    def key(self) -> str:
        """The prompt: one question is judged with several pairs of answers."""
        return _lines(self.prompt)


@dataclass(frozen=True, slots=True)
class Document(Unasked):
    """Unstructured text; nothing is asked."""

    text: str
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def key(self) -> str:
        """All of it."""
        return self.text


def chat(instruction: str, response: str, **tags: str) -> Chat:
    """Return the two-turn Chat of an instruction and its response.

    >>> chat("Say hi.", "hi", domain="general").reference
    'hi'
    """
    return Chat((Turn("user", instruction), Turn("assistant", response)), tags)


def text_id(example: Example) -> str:
    """Return a hash of all that is said in an example, by which a record is known whatever its place."""
    return hashlib.sha256(example.text.encode()).hexdigest()[:16]


AnExample = TypeVar("AnExample", bound=Example)


def tagged(example: AnExample, **tags: str) -> AnExample:
    """Return the example with these tags besides, in place of those of the same names."""
    dataclass_object: Any = example
    return replace(dataclass_object, tags={**example.tags, **tags})
