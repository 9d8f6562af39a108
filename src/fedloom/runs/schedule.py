"""Who will be asked in which round, written down before the first one: drawing clients is a function of seed and round.

A line of `schedule.jsonl` is a round of a stage (`leg`) with its clients, of so many. A client whose privacy budget is
spent by then is not asked although it stands there. Where whole clients are protected the accountant counts on nobody
knowing who takes part: nobody is named, and the file says so.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from fedloom.base.errors import RunError
from fedloom.base.files import write_atomic
from fedloom.contracts.federated import Plan
from fedloom.federated.rounds import sample_clients
from fedloom.runs.directory import RunDirectory
from fedloom.runs.stage import Stage

__all__ = ["keep_schedule", "participation"]

_FILE = "schedule.jsonl"
_SECRET = "drawn in secret: the privacy of clients counts on it, so the schedule is not written"


def keep_schedule(directory: RunDirectory, stages: Sequence[Stage]) -> None:
    """Write the schedule of all stages; a run that goes on has to find the same, where it had one: RunError."""
    path = directory.path / _FILE
    lines = (json.dumps(line) + "\n" for stage in stages for line in _lines(stage))  # a round of many is long
    if not path.is_file():
        write_atomic(path, lines)
    elif not _says(path, lines):
        raise RunError(f"{path}: is not who this run asks, round by round; restore it or start a new run.")


def _says(path: Path, lines: Iterator[str]) -> bool:
    """Return whether a file has these lines and no others."""
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            return all(found == line for found, line in zip_longest(file, lines))
    except UnicodeDecodeError:
        return False


def participation(stages: Sequence[Stage]) -> tuple[str, ...]:
    """Return how many clients of how many a round asks, a line for each way in which some are drawn."""
    return tuple(dict.fromkeys(line for stage in stages for line in _drawn(stage.plan)))


def _lines(stage: Stage) -> Iterator[dict[str, Any]]:
    plan, head = stage.plan, {"leg": stage.name, "of": len(stage.plan.clients)}
    if plan.mechanism.covers().at_server:
        yield head | {"rounds": plan.rounds, "expected": plan.budgets[""].rate * len(plan.clients), "clients": _SECRET}
        return
    for round in range(plan.rounds):
        yield head | {"round": round, "clients": sample_clients(plan, round)}


def _drawn(plan: Plan) -> Iterator[str]:
    count = len(plan.clients)
    if plan.mechanism.covers().at_server and (expected := plan.budgets[""].rate * count) < count:
        yield f"about {expected:g} of {count} clients take part in a round, {_SECRET}"
    elif plan.clients_per_round < count:
        yield f"{plan.clients_per_round} of {count} clients take part in a round ({_FILE})"
