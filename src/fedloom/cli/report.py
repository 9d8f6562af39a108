"""`fedloom report`: the page of a run, a folder of runs or a suite."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    folder: Annotated[
        Path, typer.Argument(help="A run directory, a folder of them or a suite directory.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; left out: report.html in the folder.", show_default=False)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Write one page that says who wins, by how much, how sure and for which clients; it loads nothing."""
    from fedloom.base.extras import require
    from fedloom.benchmark.page import write_report
    from fedloom.cli.console import lines

    require("report", "matplotlib")
    path = write_report(folder, out)
    lines([] if quiet else [str(path)])
