"""`fedloom people`: layered people from a few photographs (docs/people.md)."""

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.output import Quiet, lines

__all__ = ["people"]

people = typer.Typer(help="People and garments in layers, from a few photographs [people].")


@people.command()
def make_data(
    out: Annotated[Path, typer.Option(help="The folder to fill.", show_default=False)],
    studios: Annotated[int, typer.Option(help="Studios to train with.")] = 4,
    each: Annotated[int, typer.Option(help="People of each.")] = 6,
    validation: Annotated[int, typer.Option(help="People of other studios, to choose by.")] = 4,
    test: Annotated[int, typer.Option(help="People of yet other studios, to report.")] = 6,
    size: Annotated[int, typer.Option(help="Rows and columns of a picture.")] = 128,
    views: Annotated[int, typer.Option(help="Photographs of a person.")] = 6,
    skew: Annotated[float, typer.Option(help="How far studios differ, 0 to 1.")] = 0.7,
    seed: Annotated[int, typer.Option(help="Of everybody.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Photograph people who never were; called again, it goes on where it was stopped."""
    from fedloom.people.dataset import DataSet, make_data

    wanted = DataSet(
        studios=studios, people=each, validation=validation, test=test, size=size, views=views, skew=skew, seed=seed
    )
    for folder in make_data(wanted, out):
        if not quiet:
            lines([folder])
