"""`fedloom people`: layered people from a few photographs (docs/people.md)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from fedloom.base.errors import ConfigError
from fedloom.cli.output import AsJson, Quiet, lines, tell
from fedloom.cli.people_read import read

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedloom.people.body import BodyModel
    from fedloom.people.field import Field

__all__ = ["people"]

Chosen = TypeVar("Chosen", bound=str)

people = typer.Typer(help="People and garments in layers, from a few photographs (extra: people).")
people.add_typer(read, name="read")


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
    from fedloom.people.steps import Reconstructing, reconstruct

    name, network = _field(field)
    reconstruct(capture, network, name, out, Reconstructing(cell_m=cell_m), _say(quiet))


@people.command()
def separate(person: Person, quiet: Quiet = False) -> None:
    """Find the clothes on a person's surface and cut them out as layers, by what a parser told of the photographs."""
    from fedloom.people.fine_tune import FineTuning
    from fedloom.people.person_folder import PersonFolder
    from fedloom.people.scgs import Separation
    from fedloom.people.steps import separate_layers

    separate_layers(PersonFolder(person), Separation(), FineTuning(), _say(quiet))


Bodies = Annotated[str, typer.Option("--body", help="Body model: procedural, smpl or anny (an extra).")]
BodyFile = Annotated[str, typer.Option("--body-path", help="The file of a body model that has one.")]


@people.command()
def fit(person: Person, body: Bodies = "procedural", body_path: BodyFile = "", quiet: Quiet = False) -> None:
    """Find the body under a person's clothes: shape and pose, by skin that is seen and cloth that lies outside."""
    from fedloom.people.fit import Fitting
    from fedloom.people.person_folder import PersonFolder
    from fedloom.people.wearing import fit_body

    fit_body(PersonFolder(person), _body(body, body_path), Fitting(), _say(quiet))


@people.command()
def swap(
    giver: Annotated[Path, typer.Argument(help="Whose clothes.", show_default=False)],
    taker: Annotated[Path, typer.Argument(help="Whose body.", show_default=False)],
    garments: Annotated[list[str] | None, typer.Option("--garment", help="upper or lower; left out: all.")] = None,
    route: Annotated[str, typer.Option(help="bound: the mesh as cut; offsets: on the body's topology.")] = "bound",
    pose: Annotated[str, typer.Option(help="own, a or raised.")] = "own",
    body: Bodies = "procedural",
    body_path: BodyFile = "",
    quiet: Quiet = False,
) -> None:
    """Put one person's clothes on another's body, in a pose."""
    from fedloom.people.person_folder import PersonFolder
    from fedloom.people.wearing import POSES, ROUTES, Pose, Route, swap

    by: Route = _one_of("--route", route, ROUTES)
    stands: Pose = _one_of("--pose", pose, POSES)
    people = PersonFolder(giver), PersonFolder(taker)
    swap(*people, _body(body, body_path), tuple(garments or ()), by, stands, _say(quiet))


@people.command()
def export(
    person: Person,
    out: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    texture: Annotated[
        int,
        typer.Option(
            min=0, max=8192, help="Texels a side of each layer's picture (extra: xatlas); 0: colours by vertex."
        ),
    ] = 0,
    field: Trained = "shipped",
) -> None:
    """Write a person's layers as GLB, OBJ and PLY; pictures are made anew from the photographs, by the same field."""
    from fedloom.base.files import refuse_filled
    from fedloom.people.capture_files import read_capture
    from fedloom.people.export import textured, write_layers
    from fedloom.people.page import layers_of
    from fedloom.people.person_folder import PersonFolder

    refuse_filled(out)
    folder = PersonFolder(person)
    if texture:
        name, network = _field(field)
        folder.refuse_other("field", name, "name the one that it was reconstructed by: --field")
        capture = read_capture(Path(folder.record["capture"]))
        write_layers(textured(layers_of(folder), network, capture, texture), out)
    else:
        write_layers(layers_of(folder), out)
    lines([str(out)])


@people.command()
def measure(person: Person, as_json: AsJson = False) -> None:
    """Print what was made of a person in numbers: beside its photographs and, where it is known, beside the truth."""
    from dataclasses import asdict

    from fedloom.base.tables import Table
    from fedloom.people.measuring import measured
    from fedloom.people.person_folder import PersonFolder

    told = measured(PersonFolder(person))
    rows = tuple((one.of, one.name, f"{one.value:.4g}") for one in told)
    tell([asdict(one) for one in told], [Table(str(person), ("of", "measure", "value"), rows)], as_json=as_json)


@people.command()
def body(
    file: Annotated[Path, typer.Argument(help="A licensed body: .npz or .pkl.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The .npz file to write.", show_default=False)],
) -> None:
    """Write a body's file as plain arrays: what is needed of it alone, and opened ever after without a pickle."""
    from fedloom.base.files import refuse_filled
    from fedloom.people.body import write_body

    refuse_filled(out)
    write_body(_body("smpl", str(file)).load(), out)
    lines([str(out)])


@people.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    field: Trained = "shipped",
    views: Annotated[int, typer.Option(min=4, max=8, help="Photographs of each person.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the two people, whom nobody trained on.")] = 0,
    quiet: Quiet = False,
) -> None:
    """From photographs of two people who never were to layers, a swap, meshes and a page, in one go."""
    from fedloom.people.demo import demo

    lines([str(demo(out, field, views, seed, _say(quiet)))])


@people.command()
def ablation(
    count: Annotated[int, typer.Option("--people", min=2, help="People whom nothing was chosen by.")] = 6,
    seed: Annotated[int, typer.Option(help="Of the people.")] = 0,
    against: Annotated[str, typer.Option(help="The arm whose mIoU is taken off.")] = "fair baseline",
    as_json: AsJson = False,
) -> None:
    """Print what each factor of a separation is worth under noise of the parser, losing rows too."""
    import json

    from fedloom.people.ablation import ablation, conditions

    for row in ablation(count, conditions(), "report", seed, against=against):
        low, high = (f"{row[f'difference_{end}']:+.3f}" for end in ("low", "high"))
        text = (
            f"{row['views']} views, calib {row['calib']}, rate {row['rate']}: {row['arm']}: mIoU {row['miou']:.3f}, "
            f"less the {against} {row['difference']:+.3f} [{low}, {high}]"
        )
        lines([json.dumps(row) if as_json else text])


@people.command()
def report(person: Person) -> None:
    """Write a person's page, of what has been made so far."""
    from fedloom.people.page import write_page
    from fedloom.people.person_folder import PersonFolder

    lines([str(write_page(PersonFolder(person)))])


def _say(quiet: bool) -> "Callable[[str], None]":
    return (lambda text: None) if quiet else (lambda text: lines([text]))


def _field(path: str) -> "tuple[str, Field]":
    """Return a trained field and what it is called in a person's folder."""
    import torch

    from fedloom.people.adapter.models.person_field import PersonField

    family = PersonField(path=path)
    return family.identity(), family.build(seed=0, device=torch.device("cpu")).field


def _body(name: str, path: str) -> "BodyModel":
    from fedloom.base.config import build
    from fedloom.base.plugin import lookup
    from fedloom.people.body import BodyModel

    return build(lookup(BodyModel, name), {"path": path} if path else {})


def _one_of(option: str, value: str, allowed: "tuple[Chosen, ...]") -> "Chosen":
    for one in allowed:
        if value == one:
            return one
    raise ConfigError(f"{option}: found '{value}', allowed are {', '.join(allowed)}.")
