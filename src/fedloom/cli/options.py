"""`fedloom options`: what a run file may say, told by the program itself."""

import json
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedloom.base.errors import ConfigError
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
    from fedloom.base.options import options_of, place_of, summary_of
    from fedloom.base.plugin import Family, lookup, plugins
    from fedloom.runs.tuning import TuningRun

    record: type[Any] = place_of(TuningRun, key) if key else TuningRun
    if issubclass(record, Family) and not name:
        found = {one: summary_of(kind) for one, kind in plugins(record).items()}
        _tell(as_json, found, [line for one, said in found.items() for line in _block(one, said)])
        return
    if issubclass(record, Family):
        record = lookup(record, name)
    elif name:
        raise ConfigError(f"{key or 'options'}: no plug-in goes there, found '{name}'; leave it out.")
    told = options_of(record)
    _tell(as_json, [asdict(one) for one in told], [line for one in told for line in _lines(one)])


def _tell(as_json: bool, record: Any, texts: list[str]) -> None:
    lines([json.dumps(record)] if as_json else texts)


def _lines(option: "Option") -> list[str]:
    default = f" = {option.default}" if option.default not in ("", "left out", "see there") else ""
    left = {"": ", needed", "left out": ", or left out"}.get(option.default, "")
    takes = f"({option.takes}{left})"
    return _block(f"{option.key}{default}", f"{takes} {option.meaning}")


def _block(head: str, said: str) -> list[str]:
    return [head, *textwrap.wrap(said, _WIDE, initial_indent="    ", subsequent_indent="    ")]
