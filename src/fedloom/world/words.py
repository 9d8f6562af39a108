"""The words of the world: all that it says is data, in the files of `data`, each of which is read once.

The order of what stands in them counts as well: it decides what is drawn.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["PHRASES", "WORDS", "table"]


@cache
def table(name: str) -> Any:
    """Return what a file of `data` holds, in its order; lists are tuples."""
    return _frozen(tomllib.loads((files("fedloom.world") / "data" / f"{name}.toml").read_text("utf-8")))


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(inner) for key, inner in value.items()}
    return tuple(_frozen(inner) for inner in value) if isinstance(value, list) else value


WORDS: Mapping[str, tuple[str, ...]] = {
    name: tuple(listed.split() if isinstance(listed, str) else listed)
    for name, listed in table("words")["lists"].items()
}
PHRASES: Mapping[str, Any] = table("phrases")
