"""Titled tables of texts, as commands print and Markdown files hold them."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedloom.base.shown import in_markdown

__all__ = ["Table"]


@dataclass(frozen=True)
class Table:
    """A titled table of texts."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [f"## {in_markdown(self.title)}", "", _line(self.header), _line(["---"] * len(self.header))]
        return "\n".join([*lines, *map(_line, self.rows), ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(in_markdown, cells))} |"
