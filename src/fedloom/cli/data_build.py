"""`fedloom data build`, `fedloom data verify`: FedLLM-Bench's data sets from the public sets they are made of."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fedloom.base.errors import UnknownNameError, suggest

if TYPE_CHECKING:
    from fedloom.data.build.recipes import DatasetName

__all__ = ["data_build", "data_verify"]

From = Annotated[str, typer.Option("--from", help="Files of the upstream set, a folder of them, or its hub name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the card as JSON.")]


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
    revision: Annotated[str, typer.Option(help="Commit or tag of a hub name.")] = "",
    as_json: AsJson = False,
) -> None:
    """Build a data set of FedLLM-Bench: records by user in training, validation and test, and a card of how."""
    from fedloom.cli.console import lines
    from fedloom.data.build.building import build
    from fedloom.data.build.recipes import RECIPES
    from fedloom.data.build.upstream import open_upstream

    if dataset not in RECIPES:
        raise UnknownNameError(f"data build: no data set called '{dataset}'. {suggest(dataset, RECIPES)}")
    name = cast("DatasetName", dataset)
    card = build(name, open_upstream(source, revision), out, min_records=min_records, clients=clients, seed=seed)
    lines([json.dumps(card)] if as_json else [*_summary(card), str(out)])


def data_verify(
    folder: Annotated[Path, typer.Argument(help="A folder made by `fedloom data build`.", show_default=False)],
    source: Annotated[
        str | None, typer.Option("--from", help="Compare the upstream files, too.", show_default=False)
    ] = None,
    revision: Annotated[str, typer.Option(help="Commit or tag of a hub name.")] = "",
    as_json: AsJson = False,
) -> None:
    """Compare every file of a built data set with the checksums of its card."""
    from fedloom.cli.console import lines
    from fedloom.data.build.building import verify
    from fedloom.data.build.upstream import open_upstream

    card = verify(folder, open_upstream(source, revision) if source else None)
    lines([json.dumps(card)] if as_json else [f"{folder}: {len(card['outputs'])} files as built"])


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
