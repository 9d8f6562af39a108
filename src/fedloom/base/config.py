"""Run files: strict TOML to frozen dataclasses and back.

A field whose type is a family takes a table with `name`; the fields of the plug-in are the keys of the table. Nothing
is ignored: an unknown or missing key, a wrong type or a value out of range is refused with its full path before
anything is loaded. The only other source is `key=value` overrides in TOML syntax.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from fedloom.base.errors import ConfigError, MissingFileError, UnknownNameError, suggest
from fedloom.base.plugin import Family, lookup, plugins

__all__ = ["apply_override", "build", "differing_keys", "dump", "parse", "read_toml", "table_of", "value_at"]

RecordType = TypeVar("RecordType")
_LARGEST = 2**63 - 1  # what the libraries below can hold


def read_toml(path: Path) -> dict[str, Any]:
    """Return the table of a TOML file; a missing or malformed file is refused."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such TOML file; give the path of one.")
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}.") from error


def parse(text: str, where: str) -> dict[str, Any]:
    """Return the table of TOML text; `where` names it in a refusal."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{where}: not valid TOML: nested too deeply.") from error
    except ValueError as error:  # TOMLDecodeError is one; a number of thousands of digits is another
        raise ConfigError(f"{where}: not valid TOML: {error}.") from error


def apply_override(table: Mapping[str, Any], override: str) -> dict[str, Any]:
    """Return the table with `a.b=value` applied; the value is TOML, or a bare word taken as text.

    >>> apply_override({"local": {"lr": 1.0}}, "local.lr=0.5")
    {'local': {'lr': 0.5}}
    """
    key, separator, text = override.partition("=")
    names = key.strip().split(".")
    if not separator or not all(names):
        raise ConfigError(f"override '{override}': allowed is key=value, for instance local.lr=1e-4.")
    return _override(table, names, 0, _override_value(text.strip()), override)


def _override(table: Mapping[str, Any], names: list[str], depth: int, value: Any, override: str) -> dict[str, Any]:
    name = names[depth]
    if depth == len(names) - 1:
        return {**table, name: value}
    inner = table.get(name, {})
    inner = {"name": inner} if isinstance(inner, str) else inner
    if not isinstance(inner, Mapping):
        raise ConfigError(f"override '{override}': '{'.'.join(names[: depth + 1])}' is {inner!r}, no table.")
    return {**table, name: _override(inner, names, depth + 1, value, override)}


def value_at(table: Mapping[str, Any], path: str) -> Any:
    """Return what stands at a path of keys such as `local.lr`; None where nothing does."""
    value: Any = table
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _override_value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return table["value"] if len(table) == 1 else text


def build(cls: type[RecordType], table: Mapping[str, Any], path: str = "") -> RecordType:
    """Return the dataclass object that a table describes; every refusal carries the full path of the key."""
    known = {item.name: item for item in _init_fields(cls)}
    hints = get_type_hints(cls, include_extras=True)
    for key in table:
        if key not in known:
            raise UnknownNameError(f"{_join(path, key)}: unknown key. {suggest(key, known)}")
    for key, item in known.items():
        if key not in table and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{_join(path, key)}: missing; it has no default.")
    values = {
        key: _convert(hints[key], _with_default_name(known[key], value), _join(path, key))
        for key, value in table.items()
    }
    try:
        return cls(**values)
    except ConfigError as error:
        raise type(error)(_join(path, str(error)) if path else str(error)) from error


def _with_default_name(item: Field[Any], value: Any) -> Any:
    """Return a table that names no plug-in with the name of the field's default."""
    if not isinstance(value, dict) or "name" in value or item.default_factory is MISSING:
        return value
    default = item.default_factory()
    return {"name": default.name, **value} if isinstance(default, Family) else value


def _init_fields(cls: type[Any]) -> list[Field[Any]]:
    return [item for item in fields(cls) if item.init]


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _convert(kind: Any, value: Any, path: str) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:  # part of a run file, checked when it is whole
        return value
    if origin is Annotated:
        return _convert(parts[0], value, path)
    if origin in (Union, UnionType):
        return _convert_optional(parts, value, path)
    if origin is Literal:
        return _convert_literal(parts, value, path)
    if origin is tuple:
        return _convert_tuple(parts, value, path)
    if origin in (dict, Mapping) or kind is dict:
        return _convert_mapping(parts, value, path)
    if isinstance(kind, type) and issubclass(kind, Family):
        return _convert_plugin(kind, value, path)
    if is_dataclass(kind) and isinstance(kind, type):
        return build(kind, _need(dict, value, path, "a table"), path)
    return _convert_scalar(kind, value, path)


def _convert_optional(parts: tuple[Any, ...], value: Any, path: str) -> Any:
    kinds = [part for part in parts if part is not NoneType]
    if len(kinds) != 1:
        raise TypeError(f"{path}: a field of several types is no schema.")
    return _convert(kinds[0], value, path)


def _convert_literal(parts: tuple[Any, ...], value: Any, path: str) -> Any:
    if not any(type(part) is type(value) and part == value for part in parts):  # 1 is not true
        raise ConfigError(f"{path}: found {value!r}. {suggest(str(value), map(str, parts))}")
    return value


def _convert_tuple(parts: tuple[Any, ...], value: Any, path: str) -> Any:
    items = _need(list, value, path, "a list")
    return tuple(_convert(parts[0], item, f"{path}[{index}]") for index, item in enumerate(items))


def _convert_mapping(parts: tuple[Any, ...], value: Any, path: str) -> dict[str, Any]:
    table = _need(dict, value, path, "a table")
    return {key: _convert(parts[1], item, _join(path, key)) for key, item in table.items()}


def _convert_plugin(family: type[Family], value: Any, path: str) -> Family:
    table = dict({"name": value} if isinstance(value, str) else _need(dict, value, path, "a table with 'name'"))
    name = table.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{path}.name: missing; name the {family.__name__} to use.")
    try:
        found = lookup(family, name)
    except UnknownNameError as error:
        raise UnknownNameError(f"{path}.name: {error}") from error
    _refuse_others(family, found, table, path)
    return build(found, table, path)


def _refuse_others(family: type[Family], found: type[Family], table: Mapping[str, Any], path: str) -> None:
    """Refuse a setting that the plug-in has not, where another one of its family has it, by that one's name."""
    for key in sorted(table.keys() - _keys(found)):
        having = [name for name, one in plugins(family).items() if key in _keys(one)]
        if having:
            raise UnknownNameError(
                f"{_join(path, key)}: '{found.name}' has no such setting, others have: set {path}.name to "
                f"{' or '.join(repr(name) for name in having[:4])}."
            )


def _keys(kind: type[Family]) -> set[str]:
    return {item.name for item in fields(kind)} if is_dataclass(kind) else set()


def _convert_scalar(kind: Any, value: Any, path: str) -> Any:
    if kind is Path:
        return Path(_need(str, value, path, "a path in quotes"))
    if kind in (int, float) and isinstance(value, int) and abs(value) > _LARGEST:
        found = value if value.bit_length() < 10_000 else "a number of thousands of digits"  # Python writes no more
        raise ConfigError(f"{path}: found {found}, allowed are whole numbers of 63 bits.")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wanted = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}
    if kind not in wanted:
        raise TypeError(f"{path}: a field of type {kind!r} is no schema.")
    if isinstance(value, bool) and kind is not bool:
        raise ConfigError(f"{path}: found {value!r}, allowed is {wanted[kind]}.")
    return _need(kind, value, path, wanted[kind])


def _need(kind: type[Any], value: Any, path: str, wanted: str) -> Any:
    if not isinstance(value, kind):
        raise ConfigError(f"{path}: found {value!r}, allowed is {wanted}.")
    return value


def table_of(record: Any) -> dict[str, Any]:
    """Return the table of a dataclass object with every default written out; None is left out, TOML has no such value.

    Fields that are tables come last, as TOML wants them.
    """
    values = {item.name: vars(record)[item.name] for item in _init_fields(type(record))}
    for item in _init_fields(type(record)):
        if values[item.name] is None and item.default is not None:
            raise ConfigError(f"{item.name}: found None, its default is {item.default}: no run file can say None.")
    head = {"name": record.name} if isinstance(record, Family) else {}
    plain = {key: _plain(value) for key, value in values.items() if value is not None}
    return head | dict(sorted(plain.items(), key=lambda pair: isinstance(pair[1], dict)))


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return table_of(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def dump(record: Any) -> str:
    """Return the TOML text of a dataclass object; `build` on it gives an equal object."""
    return tomli_w.dumps(table_of(record))


def differing_keys(first: Mapping[str, Any], second: Mapping[str, Any], path: str = "") -> list[str]:
    """Return the full paths of the keys in which two tables differ."""
    keys: list[str] = []
    for key in sorted(first.keys() | second.keys()):
        one, other = first.get(key), second.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            keys += differing_keys(one, other, _join(path, key))
        elif one != other:
            keys.append(_join(path, key))
    return keys
