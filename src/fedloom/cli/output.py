"""What commands share: options that several have, and how what they found is printed."""

import datetime
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from fedloom.base.shown import shown
from fedloom.base.tables import Table

__all__ = ["AsJson", "Quiet", "RunFile", "lines", "overriding", "print_tables", "tell", "today"]

RunFile = Annotated[Path, typer.Argument(help="A run file (TOML).", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with numbers as numbers.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]

_NO_LIMIT = 10_000  # a table is as wide as it needs: a cut number is worse than a wrapped line


def overriding(example: str) -> Any:
    """Return the argument of overrides, with one of them as an example."""
    return typer.Argument(help=f"key=value, for instance {example}.", show_default=False)


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
    """Print tables as wide as they need."""
    wide = Console(width=_NO_LIMIT)
    for table in tables:
        printed = RichTable(title=escape(shown(table.title)), title_justify="left")
        for name in table.header:
            printed.add_column(escape(shown(name)), no_wrap=True)
        for row in table.rows:
            printed.add_row(*(escape(shown(cell)) for cell in row))
        wide.print(printed)


def lines(texts: Sequence[str]) -> None:
    """Print plain lines, one for each text."""
    sys.stdout.write("".join(f"{shown(text)}\n" for text in texts))
