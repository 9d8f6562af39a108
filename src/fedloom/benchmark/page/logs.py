"""What the logs of a run say: curves over rounds, what left the clients, what the run cost and ran on."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.base.mean import Mean, summed
from fedloom.benchmark.page.words import size
from fedloom.results.estimates import crossed
from fedloom.results.outcome import Outcome, reading
from fedloom.runs.directory import RunDirectory

__all__ = ["Curves", "Sent", "curves", "environment", "facts", "number", "sent", "trained_tokens"]

Curves = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True)
class Sent:
    """One kind of thing that left clients."""

    what: str
    times: int
    clients: int
    size_bytes: float
    """0 where the ledger tells none."""


def curves(found: Outcome) -> Curves:
    """Return every number of metrics.jsonl by name and by rounds done; legs (local models) are taken together.

    What training tells of a round, numbered from 0, stands at the round's end.
    """
    directory = RunDirectory(Path(found.path))
    with reading(directory, "metrics.jsonl"):
        sums = summed(
            ((line["round"] + (line["phase"] == "train"), line["name"]), Mean(line["total"], line["weight"]))
            for line in directory.lines("metrics.jsonl")
        )
        return crossed((name, place, mean.value) for (place, name), mean in sorted(sums.items()) if mean.weight)


def sent(found: Outcome) -> list[Sent]:
    """Return what left the clients, by kind, in the order of its first appearance."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    directory = RunDirectory(Path(found.path))
    with reading(directory, "ledger.jsonl"):
        for line in directory.lines("ledger.jsonl"):
            kinds.setdefault(str(line["what"]), []).append(line)
        return [
            Sent(what, len(lines), len({line["client"] for line in lines}), sum(line.get("bytes", 0) for line in lines))
            for what, lines in kinds.items()
        ]


def trained_tokens(found: Outcome) -> float | None:
    """Return the tokens trained on: each client's tokens times its epochs; None where the ledger may not tell them."""
    directory = RunDirectory(Path(found.path))
    with reading(directory, "partition.json"):
        rows = [line for line in directory.lines("ledger.jsonl") if "weight" in line]
        if not rows or not all("epochs" in line for line in rows):
            return None
        tokens = {client: found.card["encoded"][client].get("tokens", 0) for client in found.card["counts"]}
        everything = sum(tokens.values())  # what a centralised run trains on under a name of its own
        return sum(line["epochs"] * tokens.get(line["client"], everything) for line in rows)


def facts(found: Outcome) -> tuple[Sequence[int], Sequence[float]]:
    """Return the examples of each client; and of the partition Gini, effective clients and training tokens."""
    with reading(RunDirectory(Path(found.path)), "partition.json"):
        counts, encoded = found.card["counts"], found.card["encoded"]
        if not counts:
            raise ValueError("no client has examples")
        tokens = sum(number(row.get("tokens", 0)) for client, row in encoded.items() if client in counts)
        rest = [*map(number, (found.card["gini"], found.card["effective_clients"])), tokens]
        return list(map(number, counts.values())), rest


def number(value: Any) -> Any:
    """Return a number as it is; anything else raises TypeError."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is no number")
    return value


def environment(found: Outcome) -> dict[str, str]:
    """Return what the run ran on, in words."""
    directory = RunDirectory(Path(found.path))
    with reading(directory, "environment.json"):
        read = json.loads(directory.read("environment.json"))
        changed = (directory.path / "dirty.diff").is_file()
        return {
            "command": " ".join(read["command"]),
            "commit": read["commit"] + (" with uncommitted changes (dirty.diff)" if changed and read["commit"] else ""),
            "devices": ", ".join(read["devices"]) or "CPU",
            "threads": str(read["threads"]),
            "memory": size(read["memory_bytes"]),
            "platform": read["platform"],
            "Python": read["python"],
            "CUDA": read["cuda"],
            "versions": ", ".join(f"{name} {version}" for name, version in read["versions"].items() if version),
        }
