"""The typed examples that data sources yield and tasks consume: Chat, Preference, Document.

An example is text and tags. Tags say what is known of it without reading it (`client`, `domain`, `topic`, `language`,
`source`, `fact`, ...); partitions and per-group scores read them, training never does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fedloom.base.errors import DataError

__all__ = ["Chat", "Document", "Example", "Preference", "Role", "Turn", "chat"]

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Role
    text: str


def _check_turns(turns: Sequence[Turn], last: Role) -> None:
    spoken = turns[1:] if turns and turns[0].role == "system" else turns
    for index, turn in enumerate(spoken):
        expected = "user" if index % 2 == 0 else "assistant"
        if turn.role != expected:
            raise DataError(
                f"turn {index} has role '{turn.role}', allowed is '{expected}': user and assistant alternate."
            )
    if not spoken or spoken[-1].role != last:
        raise DataError(f"a conversation of {len(turns)} turns must end with a turn of role '{last}'.")


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation that ends with an answer; an instruction with its response is one of two turns.

    A system turn may come first; then user and assistant alternate. All assistant turns are learnt from.
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
    def answer(self) -> str:
        """The last answer, the reference in an evaluation."""
        return self.turns[-1].text


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt with a chosen and a rejected answer."""

    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        _check_turns(self.prompt, "user")


@dataclass(frozen=True, slots=True)
class Document:
    """Unstructured text."""

    text: str
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


Example = Chat | Preference | Document


def chat(instruction: str, response: str, **tags: str) -> Chat:
    """Return the two-turn Chat of an instruction and its response.

    >>> chat("Say hi.", "hi", domain="general").answer
    'hi'
    """
    return Chat((Turn("user", instruction), Turn("assistant", response)), tags)
