"""What a run file may say, told by its records themselves: keys, types, ranges, defaults, the words below a field.

A key leads to settings of its own (`local`, `evaluation.metrics`), or to a family of plug-ins, of which each has some.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tomli_w

from fedloom.base.errors import ConfigError, UnknownNameError, suggest
from fedloom.base.plugin import Family, Range, names

__all__ = ["Option", "options_of", "place_of", "settings_in", "summary_of"]


@dataclass(frozen=True)
class Option:
    """A key and what it takes."""

    key: str
    takes: str
    default: str
    """As TOML; "" where the key has to be given."""
    meaning: str


def options_of(record: type[Any]) -> list[Option]:
    """Return the settings of a record in their order; a plug-in's name is none of them."""
    hints, meanings = get_type_hints(record, include_extras=True), _meanings(record)
    return [
        Option(
            item.name, _takes(hints[item.name]), _default(item), meanings.get(item.name) or _of_kind(hints[item.name])
        )
        for item in fields(record)
        if item.init
    ]


def _of_kind(hint: Any) -> str:
    """Return what a key's own settings say of themselves, where nothing is said below the key."""
    return next(map(summary_of, settings_in(hint)), "")


def settings_in(hint: Any) -> Iterator[type[Any]]:
    """Yield the records and families of which a type is made."""
    yield from (kind for kind in _kinds(hint) if _has_settings(kind))


def summary_of(record: type[Any]) -> str:
    """Return the first paragraph of what a record says of itself."""
    return " ".join((record.__doc__ or "").split("\n\n")[0].split())


def place_of(record: type[Any], key: str) -> type[Any]:
    """Return the record or family that a dotted key leads to; ConfigError where it is a plain setting, or none."""
    at: type[Any] = record
    done: list[str] = []
    for name in key.split("."):
        hints = get_type_hints(at, include_extras=True) if is_dataclass(at) else {}
        if name not in hints:
            raise UnknownNameError(f"{'.'.join([*done, name])}: no such key. {suggest(name, hints)}")
        done.append(name)
        at = next(settings_in(hints[name]), NoneType)
        if at is NoneType:
            raise ConfigError(
                f"{'.'.join(done)}: is a setting itself; allowed is a key that has some, such as 'local'."
            )
    return at


def _kinds(hint: Any) -> Iterator[Any]:
    """Yield the types of which a hint is made."""
    parts = [part for part in get_args(hint) if part not in (Ellipsis, NoneType)]
    if get_origin(hint) in (tuple, Union, UnionType, Annotated) or get_origin(hint) is Mapping:
        for part in parts:
            yield from _kinds(part)
    elif isinstance(hint, type):
        yield hint


def _has_settings(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, Family) or is_dataclass(kind))


def _takes(hint: Any) -> str:
    """Return in words what a key of that type takes."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = ", ".join(_range(one) for one in parts[1:] if isinstance(one, Range))
        return f"{_takes(parts[0])} {limits}".rstrip()
    if origin in (Union, UnionType):
        return " or ".join(_takes(part) for part in parts if part is not NoneType)
    if origin is Literal:
        return ", ".join(_literal(part) for part in parts)
    if origin is tuple:
        return f"list of: {_takes(parts[0])}"
    if isinstance(hint, type) and issubclass(hint, Family):
        return f"{hint.__name__}: {', '.join(names(hint))}"
    words = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return words.get(hint, "table")


def _range(limits: Range) -> str:
    """Return limits in words; one that is there because a machine's numbers end is none to a reader."""
    return str(limits if limits.high < 2**31 else replace(limits, high=float("inf")))


def _default(item: Field[Any]) -> str:
    if item.default is not MISSING:
        return "left out" if item.default is None else _literal(item.default)
    if item.default_factory is MISSING:
        return ""
    made = item.default_factory()
    if isinstance(made, Family):
        return _literal(made.name)
    if isinstance(made, tuple) and all(isinstance(one, Family) for one in made):
        return f"[{', '.join(_literal(one.name) for one in made)}]"
    return _literal(made) if not is_dataclass(made) else "see there"


def _literal(value: Any) -> str:
    """Return a value as TOML writes it, on one line."""
    if isinstance(value, Mapping):
        return "{}"  # no default is a table that holds anything
    return " ".join(tomli_w.dumps({"it": value}).removeprefix("it = ").split())


def _meanings(record: type[Any]) -> dict[str, str]:
    """Return the texts below the fields of a class and those that it derives from."""
    found: dict[str, str] = {}
    for kind in reversed(record.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
        except (OSError, TypeError, SyntaxError):  # no file of it is there, as of what a shell made
            continue
        (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
        for field, below in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                said = below.value
                if isinstance(said, ast.Constant) and isinstance(said.value, str):
                    found[field.target.id] = " ".join(said.value.split())
    return found
