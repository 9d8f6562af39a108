"""`fedloom synthesise`: documents become instruction data, as in a run with `prepare`, and nothing is trained."""

import json
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedloom.base.errors import DataError
from fedloom.base.tables import Table
from fedloom.cli.output import AsJson, overriding, tell

if TYPE_CHECKING:
    from fedloom.contracts.examples import Example
    from fedloom.contracts.stages import Preparation

__all__ = ["synthesise"]

_COLUMNS = ("documents", "generated", "accepted")


def synthesise(
    file: Annotated[str, typer.Argument(help="Documents: a file with a column `text`, a folder or a pattern.")],
    pool: Annotated[Path, typer.Option(help="Public examples: document, instruction, response.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to make, or to go on with.", show_default=False)],
    settings: Annotated[list[str] | None, overriding("completer.name=analogical")] = None,
    client: Annotated[str, typer.Option(help="The column that names a document's owner; left out: one owner.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Names the draws.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Turn documents into instruction data: pairs.jsonl holds those that are kept, a folder for each owner all."""
    from fedloom.base import config
    from fedloom.base.files import disk_errors, file_name, write_atomic
    from fedloom.contracts.stages import Owner
    from fedloom.results.show import pool_line

    table: dict[str, Any] = reduce(config.apply_override, settings or [], {"pool": str(pool)})
    making = _preparation(table)
    told: dict[str, Mapping[str, int]] = {}
    kept: list[str] = []
    for name, owned in _documents(file, client).items():
        home = out / file_name(name)
        with disk_errors(home):
            home.mkdir(parents=True, exist_ok=True)
        made = making(owned, Owner(name, seed, home))
        told[name] = dict(made.counts) | ({"bytes sent": sum(made.sent.values())} if made.sent else {})
        kept += [
            json.dumps(
                {"client": name, "instruction": one.prompt[-1].text, "output": one.reference}, ensure_ascii=False
            )
            for one in made.examples
        ]
    if not kept:
        raise DataError(f"{file}: no pair was kept; {out} says of each candidate why.")
    write_atomic(out / "pairs.jsonl", "".join(f"{line}\n" for line in kept))
    card = making.public_card()
    shown = [f"pool: {pool_line(card)}", str(out / "pairs.jsonl")]
    tell({"clients": told, "pool": card}, [_table(told)], shown, as_json=as_json)


def _preparation(table: Mapping[str, Any]) -> "Preparation":
    from fedloom.base import config
    from fedloom.base.plugin import lookup
    from fedloom.contracts.stages import Preparation

    return config.build(lookup(Preparation, "pairs"), table)


def _documents(file: str, client: str) -> "dict[str, list[Example]]":
    from fedloom.data.sources.file import File

    source = File(path=file, form="text", tags={"client": client} if client else {})
    owned: dict[str, list[Example]] = {}
    for one in source.load()["train"]:
        owned.setdefault(one.tags.get("client", "all"), []).append(one)
    return owned


def _table(told: Mapping[str, Mapping[str, int]]) -> Table:
    reasons = sorted({name for counts in told.values() for name in counts if name not in _COLUMNS})
    header = ("client", *_COLUMNS, *(name.removeprefix("rejected_").replace("_", " ") for name in reasons))
    rows = tuple(
        (name, *(f"{counts.get(column, 0):,}" for column in (*_COLUMNS, *reasons))) for name, counts in told.items()
    )
    return Table("pairs by client, and why candidates were dropped", header, rows)
