"""How unlike the clients of a federation are, on seven axes: each tells an aggregate, the server makes indices of them.

`describe` returns, and `write` puts into DIR/diversity.json, one JSON object:

    format          1
    n_clients       number of clients
    n_records       number of records
    axes            a list of seven objects in the order of AXES:
      name          language, quality, quantity, instruction, length, embedding or preference
      title         the name for a heading
      measured      whether there is anything to show
      why           why not; "" if measured. Then all below are empty.
      measured_with what labels, lengths, vectors and the like come from
      sends         what leaves each client, in words
      plot          name of the SVG file in the same folder
      figures       {name: number} of the whole federation, for instance gini, effective_clients
      indices       a list of objects, one or more:
        label       what it is, for instance "Jensen-Shannon divergence"
        unit        for instance "bits"; "" for pure numbers
        mean        unweighted mean over the clients that have a value
        chance      mean of what clients would have if their records were drawn from the pool at random; null if unknown
        highest     mean of the largest values possible; null if there is no bound
        furthest    up to five [client, value, chance or null], those furthest above chance first;
                    clients like the pool are not named
        clients     {client: value}; who has nothing to be measured is left out
      pool          {table: {bin: number}}: the sum of all aggregates; {} for embeddings
    ledger          a list of {client, axis, what, numbers}: all that left each client, and how many numbers it was

All indices are 0 for a client that is like the pool. Aggregates are no anonymous data; docs/diversities.md says what
they tell.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedloom.base import config
from fedloom.base.errors import DataError
from fedloom.base.files import disk_errors, write_atomic
from fedloom.base.machine import device_of
from fedloom.base.plugin import lookup
from fedloom.contracts.diversity import Aggregate, Diversity, Found, Index, Instruments
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Task
from fedloom.contracts.language import language_model
from fedloom.data.clients import divide
from fedloom.data.holdout import SetAside
from fedloom.diversity.instruments import instruments
from fedloom.diversity.plots import plot
from fedloom.runs.tuning import TuningRun

__all__ = ["AXES", "Described", "describe", "describe_run", "write"]

AXES = ("language", "quality", "quantity", "instruction", "length", "embedding", "preference")
_FURTHEST = 5
_NOTHING = 1e-9  # rounding of a client that is like the pool
_DIGITS = 6  # significant digits in the file


@dataclass(frozen=True)
class Described:
    """What was found, and what plots are drawn from."""

    record: Mapping[str, Any]
    """The JSON object that the head of this file explains."""
    aggregates: Mapping[str, Mapping[str, Aggregate]]
    """By axis and client; axes that were not measured are left out."""


def describe_run(run: TuningRun, *, with_model: bool) -> Described:
    """Return the diversities of a run's clients, measured on all training records before any are held out.

    Without the model there is no quality, and characters stand in for tokens.
    """
    torch.set_num_threads(run.threads)
    data = divide(
        run.data, run.partition, n_clients=run.clients, seed=run.seed, aside=SetAside(absent=run.evaluation.absent)
    ).train
    model = None
    if with_model:
        model = language_model(run.model.build(seed=run.seed, device=device_of(run.device), train=run.train))
    return describe(data, instruments(data, model, _answering(run)))


def _answering(run: TuningRun) -> Task:
    """Return the task by which an answer is told apart: `sft` in the run's template and length."""
    if run.task.name == "sft":
        return run.task
    table = config.table_of(run)["task"]
    common = {key: table[key] for key in ("template", "max_length") if key in table}
    return config.build(TuningRun, {"task": {"name": "sft", **common}}).task


def describe(data: Mapping[str, Sequence[Example]], instruments: Instruments) -> Described:
    """Return the diversities of the clients' examples.

    Raises DataError if there is no client, or one without examples.
    """
    empty = [client for client, examples in data.items() if not examples]
    if empty or not data:
        whose = f"client '{empty[0]}' has no examples" if empty else "there is no client"
        raise DataError(f"describe: {whose}, allowed are clients with at least one each; check the partition.")
    aggregates: dict[str, Mapping[str, Aggregate]] = {}
    axes: list[dict[str, Any]] = []
    for name in AXES:
        axis = lookup(Diversity, name)()
        why = axis.lacking(instruments)
        sent = {} if why else {client: axis.aggregate(examples, instruments) for client, examples in data.items()}
        why = why or ("" if any(any(one.values()) for one in sent.values()) else "no record has what it is measured on")
        if not why:
            aggregates[name] = sent
        found = Found((), {}) if why else axis.find(sent, instruments)
        axes.append(_axis_record(axis, found, {} if why else sent, why, instruments))
    record = {
        "format": 1,
        "n_clients": len(data),
        "n_records": sum(map(len, data.values())),
        "axes": axes,
        "ledger": [line for name, sent in aggregates.items() for line in _ledger(name, sent)],
    }
    return Described(record, aggregates)


def _ledger(axis: str, sent: Mapping[str, Aggregate]) -> list[dict[str, Any]]:
    what = lookup(Diversity, axis).sends
    numbers = {client: sum(map(len, aggregate.values())) for client, aggregate in sent.items()}
    return [{"client": client, "axis": axis, "what": what, "numbers": count} for client, count in numbers.items()]


def _axis_record(
    axis: Diversity, found: Found, sent: Mapping[str, Aggregate], why: str, instruments: Instruments
) -> dict[str, Any]:
    return {
        "name": axis.name,
        "title": axis.title,
        "measured": not why,
        "why": why,
        "measured_with": "" if why else instruments.names.get(axis.name, ""),
        "sends": "" if why else axis.sends,
        "plot": "" if why else f"diversity_{axis.name}.svg",
        "figures": {name: _rounded(value) for name, value in found.figures.items()},
        "indices": [_index_record(index) for index in found.indices],
        "pool": {} if axis.kind == "features" else _pool(sent),
    }


def _index_record(index: Index) -> dict[str, Any]:
    unlike = {client: value for client, value in index.values.items() if value > _NOTHING}
    above = {client: value - index.chance.get(client, 0.0) for client, value in unlike.items()}
    furthest = sorted(above, key=lambda client: (-above[client], client))[:_FURTHEST]
    chance = {client: _rounded(value) for client, value in index.chance.items()}
    return {
        "label": index.label,
        "unit": index.unit,
        "mean": _mean(index.values),
        "chance": _mean(index.chance),
        "highest": _mean(index.highest),
        "furthest": [[client, _rounded(index.values[client]), chance.get(client)] for client in furthest],
        "clients": {client: _rounded(value) for client, value in index.values.items()},
    }


def _mean(values: Mapping[str, float]) -> float | None:
    return _rounded(sum(values.values()) / len(values)) if values else None


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _pool(sent: Mapping[str, Aggregate]) -> dict[str, dict[str, float]]:
    pool: dict[str, Counter[str]] = {}
    for aggregate in sent.values():
        for table, bins in aggregate.items():
            pool.setdefault(table, Counter()).update(bins)
    return {table: dict(sorted(bins.items())) for table, bins in pool.items()}


def write(described: Described, folder: Path) -> Path:
    """Write a plot per measured axis and then DIR/diversity.json, each whole or not at all; return the path of it.

    Raises ConfigError, before anything is written, if matplotlib is missing.
    """
    plots = {
        f"diversity_{name}.svg": plot(lookup(Diversity, name)(), sent) for name, sent in described.aggregates.items()
    }
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in plots.items():
        write_atomic(folder / name, text)
    path = folder / "diversity.json"
    write_atomic(path, json.dumps(described.record) + "\n")
    return path
