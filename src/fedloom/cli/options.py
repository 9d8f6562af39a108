"""`fedloom options`: what a run file may say, told by the program itself."""

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedloom.cli.output import AsJson, lines

if TYPE_CHECKING:
    from fedloom.base.options import Option

__all__ = ["options"]

_WIDE = 79


def options(
    key: Annotated[
        str, typer.Argument(help="A key such as local, data or evaluation.metrics.", show_default=False)
    ] = "",
    name: Annotated[
        str, typer.Argument(help="A plug-in that goes there, such as file for data.", show_default=False)
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Print what a run file may say: all keys, those of one key, the plug-ins that go there, or one's settings."""
    from fedloom.base.options import options_of, place_of, plugins_of, summary_of
    from fedloom.base.plugin import lookup
    from fedloom.runs.tuning import TuningRun

    record: type[Any] = TuningRun
    if key:
        place = place_of(TuningRun, key)
        if place.family and not name:
            found = {one: summary_of(kind) for one, kind in plugins_of(place.kind)}
            _tell(as_json, found, [line for one, said in found.items() for line in _block(one, said)])
            return
        record = lookup(place.kind, name) if place.family else place.kind
    told = options_of(record)
    _tell(as_json, [asdict(one) for one in told], [line for one in told for line in _lines(one)])


def _tell(as_json: bool, record: Any, texts: list[str]) -> None:
    import json

    lines([json.dumps(record)] if as_json else texts)


def _lines(option: "Option") -> list[str]:
    default = f" = {option.default}" if option.default not in ("", "left out", "see there") else ""
    left = {"": ", needed", "left out": ", or left out"}.get(option.default, "")
    takes = f"({option.takes}{left})"
    return _block(f"{option.key}{default}", f"{takes} {option.meaning}")


def _block(head: str, said: str) -> list[str]:
    return [head, *textwrap.wrap(said, _WIDE, initial_indent="    ", subsequent_indent="    ")]
