"""`fedloom data describe`: how unlike the clients of a run are, on seven axes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fedloom.base.tables import Table

__all__ = ["data_describe"]

_SHOWN = 3  # clients named in the table
_FIGURES = 3  # figures in the table; the others are in the JSON


def data_describe(
    file: Annotated[Path, typer.Argument(help="A run file (TOML).", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, for instance data.n_clients=5.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for diversity.json and a plot per axis.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with numbers as numbers.")] = False,
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Do without the run's model: no quality, characters for tokens.")
    ] = False,
) -> None:
    """Print how unlike the clients of a run are: language, quality, quantity, instruction, length, embedding, taste."""
    from fedloom import api
    from fedloom.base.extras import require
    from fedloom.cli.console import lines, print_tables
    from fedloom.diversity.describe import describe_run, write

    if out:
        require("plots of --out", "matplotlib")
    described = describe_run(api.load_run(file, overrides or []), with_model=not no_model)
    if as_json:
        lines([json.dumps(described.record)])
    else:
        print_tables([_table(described.record)])
        lines(_notes(described.record))
    if out:
        write(described, out)
        lines([] if as_json else [str(out / "diversity.json")])


def _table(record: Mapping[str, Any]) -> "Table":
    from fedloom.base.tables import Table

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
