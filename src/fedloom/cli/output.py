"""What commands share: options that several have, and how what they found is printed."""

import datetime
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from fedloom.base.shown import shown
from fedloom.base.tables import Table

__all__ = ["AsJson", "Quiet", "RunFile", "lines", "log_to_stderr", "overriding", "print_tables", "tell", "today"]

RunFile = Annotated[Path, typer.Argument(help="A run file (TOML).", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with numbers as numbers.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]

_NO_LIMIT = 10_000  # into a file a table is as wide as it needs


def overriding(example: str) -> Any:
    """Return the argument of overrides, with one of them as an example."""
    return typer.Argument(help=f"key=value, for instance {example}.", show_default=False)


class _OnOneLine(logging.Formatter):
    """Warnings quote what users' files hold."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a message as `shown`."""
        return f"{record.levelname.lower()}: {shown(record.getMessage())}"


def log_to_stderr(level: int = logging.WARNING) -> None:
    """Have what the package says at a level or above, warnings for instance, written to standard error, a line each."""
    logger = logging.getLogger("fedloom")
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
    handler = logging.StreamHandler()
    handler.setFormatter(_OnOneLine())
    handler.setLevel(level)
    if level < logging.WARNING:  # what is heard besides is the business of whoever runs this
        logger.setLevel(level)
    logger.addHandler(handler)


def today() -> str:
    """Return the date here, with which names of folders begin."""
    return datetime.datetime.now().astimezone().date().isoformat()


def tell(
    record: Any, tables: Iterable[Table] = (), texts: Sequence[str] = (), *, as_json: bool, quiet: bool = False
) -> None:
    """Print what was found: the record as a line of JSON, or tables and plain lines, or nothing if quiet."""
    if as_json:
        lines([json.dumps(record)])
    elif not quiet:
        print_tables(tables)
        lines(texts)


def print_tables(tables: Iterable[Table]) -> None:
    """Print tables; on a terminal that is too narrow for one, its cells take several lines, and no number is cut."""
    terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    room, wide = Console().width if terminal else _NO_LIMIT, Console(width=_NO_LIMIT)
    for table in tables:
        printed = RichTable(title=escape(shown(table.title)), title_justify="left")
        for name in table.header:
            printed.add_column(escape(shown(name)), no_wrap=True)
        for row in table.rows:
            printed.add_row(*(escape(shown(cell)) for cell in row))
        if wide.measure(printed).maximum > room:
            lines([table.title, *_folded(table, room), ""])
        else:
            wide.print(printed)


_UNCUT = re.compile(r"\[[^\]]*\]|\S+")
"""What stays on one line: an interval, a word."""


def _folded(table: Table, room: int) -> Iterator[str]:
    """Yield the lines of a table whose cells are wrapped so that it fits, as far as words and intervals allow."""
    columns = [*zip(*([shown(cell) for cell in row] for row in (table.header, *table.rows)), strict=True)]
    least = [max(len(part) for cell in column for part in _UNCUT.findall(cell) or [""]) for column in columns]
    widths = [max(map(len, column)) for column in columns]
    while sum(widths) + 2 * len(widths) - 2 > room and widths != least:
        at = max(range(len(widths)), key=lambda column: (widths[column] > least[column], widths[column]))
        widths[at] -= 1
    for number, row in enumerate(zip(*columns, strict=True)):
        cells = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            yield "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()
        if number == 0:
            yield "  ".join("─" * width for width in widths)


def _wrapped(cell: str, width: int) -> list[str]:
    """Return the lines of a cell."""
    found = [""]
    for part in _UNCUT.findall(cell):
        longer = f"{found[-1]} {part}".strip()
        found[-1:] = [longer] if len(longer) <= width or not found[-1] else [found[-1], part]
    return found


def lines(texts: Sequence[str]) -> None:
    """Print plain lines, one for each text."""
    sys.stdout.write("".join(f"{shown(text)}\n" for text in texts))
