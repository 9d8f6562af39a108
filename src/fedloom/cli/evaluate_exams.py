"""`fedloom evaluate exam`: a model takes open-ended examinations."""

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["exam"]


def exam(
    model: Annotated[
        Path,
        typer.Argument(help="A run directory, an adapter or model folder, or a completer (TOML).", show_default=False),
    ],
    file: Annotated[Path, typer.Argument(help="What is asked and who judges (TOML).", show_default=False)],
    out: Annotated[Path, typer.Option(help="The directory to make or to go on with.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, for instance resamples=500.", show_default=False)
    ] = None,
    against: Annotated[Path | None, typer.Option(help="A second model to compare with.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with numbers as numbers.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Put open-ended questions to a model and have a judge grade the answers; the same command again goes on."""
    from fedloom.base import config
    from fedloom.cli.console import lines, print_tables
    from fedloom.judged.grading import Examination
    from fedloom.judged.run import sit

    table = config.read_toml(file)
    for override in overrides or []:
        table = config.apply_override(table, override)
    examination = config.build(Examination, table)
    silent = quiet or as_json
    result = sit(model, examination, out, against=against, report=lambda line: lines([] if silent else [line]))
    if as_json:
        lines([json.dumps(result.record)])
    elif not quiet:
        print_tables(result.tables)
        lines([*result.record["warnings"], str(out)])
