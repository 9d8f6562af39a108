"""What the logs of a run say: curves over rounds, what left the clients, what the run cost and ran on."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fedloom.base.errors import MissingFileError, RunError
from fedloom.base.mean import Mean
from fedloom.results.outcome import Outcome
from fedloom.runs.directory import RunDirectory

__all__ = ["Facts", "Sent", "curves", "environment", "facts", "number", "sent", "trained_tokens"]

Kind = TypeVar("Kind")
Curves = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True)
class Sent:
    """One kind of thing that left clients."""

    what: str
    times: int
    clients: int
    size_bytes: float
    """0 where the ledger tells none."""


@dataclass(frozen=True)
class Facts:
    """What the partition card tells of the data."""

    counts: tuple[int, ...]
    """Examples of each client."""
    gini: float
    effective_clients: float
    tokens: int
    """Of the clients' training examples."""


def _read(found: Outcome, file: str, take: Callable[[RunDirectory], Kind]) -> Kind:
    """Return what `take` reads; a file of another shape is refused by its name."""
    try:
        return take(RunDirectory(Path(found.path)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, RunError | MissingFileError):
            raise
        raise RunError(
            f"{Path(found.path) / file}: is not what fedloom wrote ({error}); the run directory is damaged."
        ) from error


def curves(found: Outcome) -> Curves:
    """Return every number of metrics.jsonl by name and by rounds done; legs (local models) are taken together.

    What training tells of a round, numbered from 0, stands at the round's end.
    """

    def take(directory: RunDirectory) -> Curves:
        sums: dict[str, dict[int, Mean]] = {}
        for line in directory.lines("metrics.jsonl"):
            place = line["round"] + (line["phase"] == "train")
            by_round = sums.setdefault(line["name"], {})
            by_round[place] = by_round.get(place, Mean()) + Mean(line["total"], line["weight"])
        return {
            name: {place: mean.value for place, mean in sorted(by_round.items()) if mean.weight}
            for name, by_round in sums.items()
        }

    return _read(found, "metrics.jsonl", take)


def sent(found: Outcome) -> list[Sent]:
    """Return what left the clients, by kind, in the order of its first appearance."""

    def take(directory: RunDirectory) -> list[Sent]:
        kinds: dict[str, list[Mapping[str, Any]]] = {}
        for line in directory.lines("ledger.jsonl"):
            kinds.setdefault(str(line["what"]), []).append(line)
        return [
            Sent(what, len(lines), len({line["client"] for line in lines}), sum(line.get("bytes", 0) for line in lines))
            for what, lines in kinds.items()
        ]

    return _read(found, "ledger.jsonl", take)


def trained_tokens(found: Outcome) -> float | None:
    """Return the tokens trained on: each client's tokens times its epochs; None where the ledger may not tell them."""

    def take(directory: RunDirectory) -> float | None:
        rows = [line for line in directory.lines("ledger.jsonl") if "weight" in line]
        if not rows or not all("epochs" in line for line in rows):
            return None
        card = json.loads(directory.read("partition.json"))
        tokens = {client: card["encoded"][client].get("tokens", 0) for client in card["counts"]}
        everything = sum(tokens.values())  # what a centralised run trains on under a name of its own
        return sum(line["epochs"] * tokens.get(line["client"], everything) for line in rows)

    return _read(found, "partition.json", take)


def facts(found: Outcome) -> Facts:
    """Return what the partition card tells of the data."""

    def take(directory: RunDirectory) -> Facts:
        card = json.loads(directory.read("partition.json"))
        counts = [number(count) for count in card["counts"].values()]
        if not counts:
            raise ValueError("no client has examples")
        tokens = [number(row.get("tokens", 0)) for client, row in card["encoded"].items() if client in card["counts"]]
        return Facts(tuple(counts), number(card["gini"]), number(card["effective_clients"]), sum(tokens))

    return _read(found, "partition.json", take)


def number(value: Any) -> Any:
    """Return a number as it is; anything else raises TypeError."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is no number")
    return value


def environment(found: Outcome) -> Mapping[str, Any]:
    """Return what the run ran on."""
    return _read(found, "environment.json", lambda directory: dict(json.loads(directory.read("environment.json"))))
