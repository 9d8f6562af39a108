"""`fedloom data`: how unlike the clients of a run are; FedLLM-Bench's data sets from those they are made of."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fedloom.base.errors import UnknownNameError, suggest
from fedloom.base.tables import Table
from fedloom.cli.output import AsJson, RunFile, lines, overriding, tell

if TYPE_CHECKING:
    from fedloom.data.build.recipes import DatasetName

__all__ = ["data"]

data = typer.Typer(help="Data sets: how unlike their clients are; FedLLM-Bench's from their sources.")

From = Annotated[str, typer.Option("--from", help="Files of the upstream set, a folder of them, or its hub name.")]
Revision = Annotated[str, typer.Option(help="Commit or tag of a hub name.")]
CardAsJson = Annotated[bool, typer.Option("--json", help="Print the card as JSON.")]

_SHOWN = 3  # clients named in the table
_FIGURES = 3  # figures in the table; the others are in the JSON


@data.command("describe")
def data_describe(
    file: RunFile,
    overrides: Annotated[list[str] | None, overriding("data.n_clients=5")] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for diversity.json and a plot per axis.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Do without the run's model: no quality, characters for tokens.")
    ] = False,
) -> None:
    """Print how unlike the clients of a run are: language, quality, quantity, instruction, length, embedding, taste."""
    from fedloom import api
    from fedloom.base.extras import require
    from fedloom.diversity.describe import describe_run, write

    if out:
        require("plots of --out", "matplotlib")
    described = describe_run(api.load_run(file, overrides or []), with_model=not no_model)
    tell(described.record, [_table(described.record)], _notes(described.record), as_json=as_json)
    if out:
        write(described, out)
        lines([] if as_json else [str(out / "diversity.json")])


def _table(record: Mapping[str, Any]) -> Table:
    title = f"{record['n_clients']} clients, {record['n_records']:,} records"
    header = ("axis", "index", "mean", "by chance", "at most", "furthest clients", "of the federation")
    return Table(title, header, tuple(_row(axis) for axis in record["axes"]))


def _row(axis: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one row per axis; what stands side by side in its cells belongs to one index each."""
    if not axis["measured"]:
        return (axis["title"], f"not measured: {axis['why']}", "", "", "", "", "")
    found = axis["indices"]
    cells = [" | ".join(_number(index[key]) for index in found) for key in ("mean", "chance", "highest")]
    labels = " | ".join(f"{one['label']} ({one['unit']})" if one["unit"] else one["label"] for one in found)
    furthest = " | ".join(
        ", ".join(f"{client} {_number(value)}" for client, value, _ in index["furthest"][:_SHOWN]) for index in found
    )
    figures = ", ".join(f"{name} {_number(value)}" for name, value in list(axis["figures"].items())[:_FIGURES])
    return (axis["title"], labels, *cells, furthest, figures)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _notes(record: Mapping[str, Any]) -> list[str]:
    told = [axis for axis in record["axes"] if axis["measured"]]
    how = [f"{axis['title']}: measured with {axis['measured_with']}" for axis in told if axis["measured_with"]]
    sent = [f"{axis['title']}: each client sent the {axis['sends']}" for axis in told]
    return [*how, *sent]


@data.command("build")
def data_build(
    dataset: Annotated[str, typer.Argument(help="aya, chatbot_it, chatbot_pa, wildchat or wildchat_multi.")],
    source: From,
    out: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    min_records: Annotated[
        int | None, typer.Option(min=3, help="Records that a user needs; left out: the recipe's.")
    ] = None,
    clients: Annotated[
        int | None, typer.Option(min=0, help="Users with the most records; 0 keeps all; left out: as published.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws what is held out.")] = 0,
    revision: Revision = "",
    as_json: CardAsJson = False,
) -> None:
    """Build a data set of FedLLM-Bench: records by user in training, validation and test, and a card of how."""
    from fedloom.data.build.building import build
    from fedloom.data.build.recipes import RECIPES
    from fedloom.data.build.upstream import open_upstream

    if dataset not in RECIPES:
        raise UnknownNameError(f"data build: no data set called '{dataset}'. {suggest(dataset, RECIPES)}")
    name = cast("DatasetName", dataset)
    card = build(name, open_upstream(source, revision), out, min_records=min_records, clients=clients, seed=seed)
    tell(card, texts=[*_summary(card), str(out)], as_json=as_json)


@data.command("verify")
def data_verify(
    folder: Annotated[Path, typer.Argument(help="A folder made by `fedloom data build`.", show_default=False)],
    source: Annotated[
        str | None, typer.Option("--from", help="Compare the upstream files, too.", show_default=False)
    ] = None,
    revision: Revision = "",
    as_json: CardAsJson = False,
) -> None:
    """Compare every file of a built data set with the checksums of its card."""
    from fedloom.data.build.building import verify
    from fedloom.data.build.upstream import open_upstream

    card = verify(folder, open_upstream(source, revision) if source else None)
    tell(card, texts=[f"{folder}: {len(card['outputs'])} files as built"], as_json=as_json)


def _summary(card: dict[str, Any]) -> list[str]:
    dropped = [
        f"  {rule['name']} ({rule['says']}; {rule['origin']}): "
        + ", ".join(f"{rule[key]:,} {key.removesuffix('_dropped')}" for key in rule if key.endswith("_dropped"))
        for rule in card["filters"]
    ]
    sizes = ", ".join(f"{split} {size['records']:,}" for split, size in card["splits"].items())
    return [
        f"{card['dataset']} from {card['upstream']['name']}, licence: {card['upstream']['licence']}",
        f"{card['rows']['read']:,} rows of {card['users']['found']:,} users read; left out:",
        *dropped,
        f"{card['users']['kept']:,} users (released: {card['released']['users']:,}), {sizes} "
        f"(released in all: {card['released']['records']:,})",
    ]
