"""What a page is made of: sections of texts, tables and figures; the template turns each into HTML."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from markupsafe import Markup

__all__ = ["Block", "Cell", "Figure", "Section", "Table", "Text"]

Tone = Literal["", "good", "bad", "open", "muted"]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    tone: Tone = ""
    code: str = ""
    """A command that follows the text."""


@dataclass(frozen=True)
class Cell:
    """A text of a table."""

    text: str
    tone: Tone = ""
    shade: int = -1
    """Place of the value on the scale of the table, 0 to 9; -1 has no colour."""


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first cell of a row is its head."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    texts: Collection[int] = (0,)
    """Places of the columns of texts; numbers stand on the right."""
    folded: bool = False
    """Whether it is shown only when asked for."""


@dataclass(frozen=True)
class Figure:
    """A drawing; `label` says in words what it shows, for who cannot see it."""

    kind: ClassVar[str] = "figure"
    svg: Markup
    label: str
    caption: str


Block = Text | Table | Figure


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading, listed in its table of contents."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple[Block, ...])
