"""What makes two runs one kind, of which they are seeds, and what each kind is called beside others."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedloom.base.config import differing_keys
from fedloom.results.outcome import Outcome

__all__ = ["configuration", "kinds"]


def configuration(found: Outcome) -> dict[str, Any]:
    """Return what makes two runs one kind: method, settings without seeds, base weights, and how many examples.

    The number is left out where a seed draws the data.
    """
    drawn = "seed" in found.settings.get("data", {})
    examples = {} if drawn else {"examples": found.card.get("n_examples", 0)}
    base = {"base": found.card.get("base_id", "")}
    return {"method": found.label, **base, **examples, **_without_seeds(found.settings)}


def _without_seeds(table: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in table.items() if key != "seed"}
    return {key: _without_seeds(value) if isinstance(value, Mapping) else value for key, value in kept.items()}


def kinds(first: Sequence[Outcome]) -> list[str]:
    """Return what each kind is called, by one run of each."""
    tables = [configuration(found) for found in first]
    names: list[str] = []
    for found, table in zip(first, tables, strict=True):
        alike = [other for other in tables if other["method"] == found.label]
        keys = dict.fromkeys(key for other in alike for key in differing_keys(table, other))
        told = [f"{key}={_at(table, key)}" for key in keys]
        names.append(" ".join([found.label, *told]))
    return names


def _at(table: Mapping[str, Any], path: str) -> Any:
    value: Any = table
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
