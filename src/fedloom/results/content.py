"""What generated examples came to in a run: how many, what they cost, how often own examples were met, and drift."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.results.outcome import Outcome, reading
from fedloom.runs.directory import RunDirectory

__all__ = ["Content", "content_of", "stage_of_content"]

_STAGES = ("generated", "on_generated")


@dataclass(frozen=True)
class Content:
    """What a run says of generated examples; None where it does not say."""

    per_client: float
    """Generated examples that a client trained on, the mean over clients."""
    at_server: float
    """Those that the server trained on, in all."""
    cost: Mapping[str, float] | None
    """Seconds, samples, tokens and bytes of all generation; the largest model and peak memory."""
    visits: float | None
    """Times that an own example was met, the mean over clients' examples."""
    drift: float | None
    """Root mean square distance of the clients' rows from their mean, over the rounds."""


def stage_of_content(found: Outcome) -> Mapping[str, Any] | None:
    """Return the settings of the first stage of a run that generates examples; None where none does."""
    stages = [*found.settings.get("prepare", ()), *found.settings.get("refine", ())]
    return next((stage for stage in stages if stage["name"] in _STAGES), None)


def content_of(found: Outcome) -> Content:
    """Return what a run says of generated examples."""
    directory = RunDirectory(Path(found.path))
    with reading(directory, "partition.json"):
        told = [one for one in found.card.get("prepared", ()) if one["stage"] in _STAGES and one["client"]]
        kept = sum(one["counts"].get("kept", one["counts"].get("accepted", 0)) for one in told)
        n_clients = max(1, len(found.card["counts"]))
    server = sum(value for name, value in found.refined.items() if name == "on_generated/samples")
    return Content(kept / n_clients, server, _cost(directory), _visits(found, directory), _drift(directory))


def _cost(directory: RunDirectory) -> dict[str, float] | None:
    files = [
        *directory.path.glob("prepared/*_generated/*/cost.json"),
        *directory.path.glob("refined/*_on_generated/cost.json"),
    ]
    if not files:
        return None
    with reading(directory, "cost.json"):
        costs: Sequence[Mapping[str, float]] = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        sums = {
            name: float(sum(one.get(name, 0) for one in costs)) for name in ("wall_s", "samples", "tokens", "bytes")
        }
        return sums | {name: float(max(one.get(name, 0) for one in costs)) for name in ("model_bytes", "peak_bytes")}


def _visits(found: Outcome, directory: RunDirectory) -> float | None:
    with reading(directory, "ledger.jsonl"):
        lines = [line for line in directory.lines("ledger.jsonl") if "samples_seen" in line]
        total = sum(line.get("own_seen", line["samples_seen"]) for line in lines)
        own = sum(found.card.get("counts", {}).values())
        return total / own if lines and own else None


def _drift(directory: RunDirectory) -> float | None:
    with reading(directory, "metrics.jsonl"):
        lines = directory.lines("metrics.jsonl")
        drifts = [line["total"] / line["weight"] for line in lines if line["name"] == "aggregator_drift"]
        return sum(drifts) / len(drifts) if drifts else None
