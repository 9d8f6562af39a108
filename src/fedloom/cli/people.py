"""`fedloom people`: layered people from a few photographs (docs/people.md)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedloom.cli.output import Quiet, lines

if TYPE_CHECKING:
    from collections.abc import Callable

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


Capture = Annotated[Path, typer.Argument(help="A capture's folder (docs/people.md).", show_default=False)]
Person = Annotated[Path, typer.Argument(help="A person's folder, made by `reconstruct`.", show_default=False)]
Trained = Annotated[str, typer.Option("--field", help="A trained field's folder, as runs write it; or `shipped`.")]


@people.command()
def reconstruct(
    capture: Capture,
    out: Annotated[Path, typer.Option(help="The person's folder to make.", show_default=False)],
    field: Trained = "shipped",
    cell_m: Annotated[float, typer.Option(help="Side of the cells of the surface, metres.")] = 0.015,
    quiet: Quiet = False,
) -> None:
    """Make a person's surface from photographs, by one pass of a trained field."""
    import torch

    from fedloom.people.adapter.models.person_field import PersonField
    from fedloom.people.steps import Reconstructing, reconstruct

    family = PersonField(path=field)
    model = family.build(seed=0, device=torch.device("cpu"))
    reconstruct(capture, model.field, family.identity(), out, Reconstructing(cell_m=cell_m), _say(quiet))


@people.command()
def separate(person: Person, quiet: Quiet = False) -> None:
    """Find the clothes on a person's surface and cut them out as layers, by what a parser told of the photographs."""
    from fedloom.people.fine_tune import FineTuning
    from fedloom.people.person_folder import PersonFolder
    from fedloom.people.scgs import Separation
    from fedloom.people.steps import separate_layers

    separate_layers(PersonFolder(person), Separation(), FineTuning(), _say(quiet))


@people.command()
def report(person: Person) -> None:
    """Write a person's page, of what has been made so far."""
    from fedloom.people.page import write_page
    from fedloom.people.person_folder import PersonFolder

    lines([str(write_page(PersonFolder(person)))])


def _say(quiet: bool) -> "Callable[[str], None]":
    return (lambda text: None) if quiet else (lambda text: lines([text]))
