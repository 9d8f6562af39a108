"""`fedloom init`: a first run file for somebody's data and model."""

from pathlib import Path
from typing import Annotated

import typer

from fedloom.base.errors import ConfigError
from fedloom.cli.output import lines

__all__ = ["init"]


def init(
    data: Annotated[str, typer.Argument(help="A file of records, a folder of files or a pattern.", show_default=False)],
    model: Annotated[
        str, typer.Argument(help="A folder, GGUF file or hub name; left out: the small model of the package.")
    ] = "",
    out: Annotated[Path, typer.Option(help="The run file to write.")] = Path("run.toml"),
    client: Annotated[str, typer.Option(help="The column that tells who owns a record.", show_default=False)] = "",
    column: Annotated[
        list[str] | None,
        typer.Option(help="What a column is, may be repeated: instruction=Frage.", show_default=False),
    ] = None,
) -> None:
    """Look at data and write a commented run file: form, columns, owners, lengths, what is held out."""
    from fedloom.runs.first_file import write_first_file

    lines(write_first_file(out, data, model, client=client, columns=dict(map(_named, column or []))))


def _named(option: str) -> tuple[str, str]:
    name, _, column = option.partition("=")
    if not name or not column:
        raise ConfigError(f"--column: found '{option}', allowed is NAME=COLUMN, such as instruction=Frage.")
    return name, column
