"""Families of plug-ins: frozen objects whose fields are their settings, found by name.

A family is an abstract class that names the folder of its plug-ins. `@plugin("prox")` makes a class a frozen dataclass
and registers it under the family it derives from. Plug-ins that differ in a number or a word lie in one module: each is
a name for an abstract class, which lies between them and the family, with its settings as class variables. Looking a
name up imports the one module that registers it; `plugins = ["my_package.my_rule"]` in a run file imports further ones.
"""

import importlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, dataclass_transform, get_args, get_origin, get_type_hints

from fedloom.base.errors import ConfigError, UnknownNameError, suggest
from fedloom.base.extras import require

__all__ = [
    "AtLeast",
    "Count",
    "Family",
    "Fraction",
    "NonNegative",
    "Positive",
    "Range",
    "check_ranges",
    "default",
    "forget",
    "lookup",
    "names",
    "plugin",
    "plugins",
]

_REGISTRY: dict[type["Family"], dict[str, type["Family"]]] = {}


@dataclass(frozen=True)
class Range:
    """The finite numbers that a field may take: low <= value <= high, or low < value if `low_excluded`."""

    low: float
    high: float = float("inf")
    low_excluded: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_excluded else value >= self.low
        return above and value <= self.high and (isinstance(value, int) or math.isfinite(value))

    def __str__(self) -> str:
        low = f"{'> ' if self.low_excluded else '>= '}{self.low:g}"
        return low if self.high == float("inf") else f"{low} and <= {self.high:.10g}"


Positive = Annotated[float, Range(0, low_excluded=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
AtLeast = Annotated[int, Range(1)]  # a count of at least one
Count = Annotated[int, Range(0, 2**63 - 1)]


def _limits(annotation: Any) -> Iterator[Range]:
    if get_origin(annotation) is Annotated:
        yield from (item for item in get_args(annotation)[1:] if isinstance(item, Range))
    else:
        for part in get_args(annotation):
            yield from _limits(part)


def check_ranges(record: Any) -> None:
    """Refuse a dataclass object one of whose annotated numbers lies outside its range."""
    for name, limits in _limits_of(type(record)):
        value = vars(record)[name]
        for number in value if isinstance(value, tuple) else (value,):
            for limit in limits:
                if isinstance(number, int | float) and number not in limit:
                    raise ConfigError(f"{name}: found {number!r}, allowed is a number {limit}.")


@cache
def _limits_of(record: type[Any]) -> list[tuple[str, list[Range]]]:
    """Return the fields that have limits, once for each dataclass."""
    hints = get_type_hints(record, include_extras=True)
    found = ((item.name, list(_limits(hints[item.name]))) for item in fields(record))
    return [(name, limits) for name, limits in found if limits]


class Family:
    """The root of all families: construction asks for libraries, checks the fields' ranges, then calls `check`."""

    folder: ClassVar[str]
    also: ClassVar[tuple[str, ...]] = ()
    """Folders of rooms that bring plug-ins of the family with them."""
    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    """Libraries that the plug-in uses and fedloom does not install by itself; without them it is refused."""

    def __post_init__(self) -> None:
        if self.needs:
            require(f"'{self.name}'", *self.needs)
        if is_dataclass(self):
            check_ranges(self)
        self.check()

    def check(self) -> None:
        """Refuse settings that contradict each other; the default accepts all."""


def _family_of(cls: type[Family]) -> type[Family]:
    """Return the family that a class derives from, by itself or through abstract classes that have no name."""
    base: type[Any] = cls
    while len(base.__bases__) == 1 and "name" not in vars(base.__bases__[0]):
        (base,) = base.__bases__
        if base.__bases__ == (Family,):
            return base
    raise TypeError(f"plug-in {cls.__name__} must derive from exactly one family and from nothing else.")


def _home(cls: type[Family]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


FamilyType = TypeVar("FamilyType", bound=Family)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def plugin(name: str) -> Callable[[type[FamilyType]], type[FamilyType]]:
    """Make a class a frozen, keyword-only dataclass and register it in the one family that it derives from."""

    def register(cls: type[FamilyType]) -> type[FamilyType]:
        family = _family_of(cls)
        taken = _REGISTRY.setdefault(family, {})
        own = _shipped(family).get(name)
        ships = own is not None and cls.__module__ != own
        # The same class again: its module was reloaded.
        if ships or (name in taken and _home(taken[name]) != _home(cls)):
            raise ConfigError(f"two plug-ins of family {family.__name__} are called '{name}': rename one.")
        cls.name = name
        record = dataclass(frozen=True, kw_only=True)(cls)
        taken[name] = record
        return record

    return register


def forget(kept: Callable[[str], bool]) -> None:
    """Forget the plug-ins of modules that are not kept, by the modules' names."""
    for taken in _REGISTRY.values():
        for name in [name for name, cls in taken.items() if not kept(cls.__module__)]:
            del taken[name]


def names(family: type[Family]) -> list[str]:
    """Return the names of all plug-ins of a family: those of its folders' modules and what was registered besides."""
    return sorted({*_shipped(family), *_REGISTRY.get(family, {})})


@cache
def _shipped(family: type[Family]) -> dict[str, str]:
    """Return the module that registers each plug-in of a family's folders, by its name, without importing it."""
    places = {folder: Path(importlib.import_module(folder).__path__[0]) for folder in (family.folder, *family.also)}
    files = {f"{folder}.{file.stem}": file for folder, place in places.items() for file in place.glob("*.py")}
    registered = re.compile(r"^@plugin\([\"'](\w+)[\"']\)", re.MULTILINE)
    texts = {module: file.read_text(encoding="utf-8") for module, file in files.items()}
    return {name: module for module, text in texts.items() for name in registered.findall(text)}


def lookup(family: type[FamilyType], name: str) -> type[FamilyType]:
    """Return the plug-in class of that name, importing its module if need be."""
    if name not in _REGISTRY.get(family, {}):
        known = names(family)
        if name not in known:
            raise UnknownNameError(f"no {family.__name__} called '{name}'. {suggest(name, known)}")
        importlib.import_module(_shipped(family)[name])
    return _REGISTRY[family][name]  # pyright: ignore[reportReturnType]


def plugins(family: type[FamilyType]) -> dict[str, type[FamilyType]]:
    """Return all plug-ins of a family by name; their modules are imported."""
    return {name: lookup(family, name) for name in names(family)}


def default(family: type[FamilyType], name: str) -> Callable[[], FamilyType]:
    """Return what makes the plug-in of that name with its defaults: the `default_factory` of a field."""
    return lambda: lookup(family, name)()
