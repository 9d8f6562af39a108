"""How weights were trained, in a file beside them: each training's mechanism, and how often it used whose data.

A run that starts from weights goes on with their lineage, so that what it states covers all that is in its result.
Weights without the file are a base model from outside, about which nothing is claimed, or an adapter of which nothing
is known; a whole model that fedloom wrote says so in its `config.json`, so that one without the file counts as of
unknown origin, too. `Lineage` is a tuple of trainings, the oldest first.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedloom.base.errors import ModelError
from fedloom.base.files import json_sha256, write_atomic

__all__ = [
    "NONE",
    "UNKNOWN",
    "Lineage",
    "Owner",
    "Training",
    "joined",
    "lineage_of_table",
    "lineage_table",
    "mark_trained",
    "read_lineage",
    "read_stated",
    "unnamed",
    "write_lineage",
]

_FILE = "lineage.json"
_MARK = "fedloom"  # a key of config.json
NONE = "none"
"""The mechanism of a training without privacy."""


@dataclass(frozen=True)
class Owner:
    """What one training did with one owner's data; without a mechanism only whose they are is told."""

    client: str = ""
    """The client; "" for all together, or where it is not to be told."""
    data: str = ""
    """SHA-256 of its training examples; "" where it is not to be told."""
    rate: float = 0.0
    noise_multiplier: float = 0.0
    delta: float = 0.0
    uses: int = 0


@dataclass(frozen=True)
class Training:
    """One training that is in the weights."""

    id: str
    """What tells it from every other training, so that it counts once by whichever way it is met."""
    mechanism: str
    unit: str
    owners: tuple[Owner, ...]


Lineage = tuple[Training, ...]

UNKNOWN = Training("", "unknown", "nothing", ())
"""Stands for whatever made an adapter that says nothing of it."""


def joined(one: Lineage, other: Lineage) -> Lineage:
    """Return the trainings of both, each once."""
    return one + tuple(training for training in other if training not in one)


def unnamed(lineage: Lineage) -> Lineage:
    """Return the lineage for others: of trainings with privacy without clients' names and hashes of their data.

    A hash tells whoever knows all examples but one which one that is, so that no mechanism covers it.
    """
    return tuple(
        training
        if training.mechanism == NONE
        else replace(
            training, owners=tuple(dict.fromkeys(replace(owner, client="", data="") for owner in training.owners))
        )
        for training in lineage
    )


def lineage_table(lineage: Lineage) -> list[dict[str, Any]]:
    """Return the lineage as JSON values."""
    return [asdict(training) | {"owners": [asdict(owner) for owner in training.owners]} for training in lineage]


def lineage_of_table(table: Sequence[Mapping[str, Any]]) -> Lineage:
    """Return the lineage that JSON values stand for; TypeError or KeyError if they are none."""
    return tuple(
        Training(str(one["id"]), str(one["mechanism"]), str(one["unit"]), tuple(Owner(**o) for o in one["owners"]))
        for one in table
    )


def write_lineage(folder: Path, lineage: Lineage, stated: Mapping[str, Any]) -> None:
    """Write down beside the weights how they were trained, and what is stated of their privacy (empty: nothing)."""
    record = {"weights": _weights_sha256(folder), "trainings": lineage_table(lineage), "stated": dict(stated)}
    write_atomic(folder / _FILE, json.dumps(record | {"sha256": json_sha256(record)}, indent=1))


def mark_trained(folder: Path) -> None:
    """Write into the configuration of a whole model that fedloom trained it, so that its lineage may not be missing."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config[_MARK] = f"{_FILE} tells how these weights were trained"
    write_atomic(path, json.dumps(config, indent=2) + "\n")


def read_lineage(folder: Path) -> Lineage | None:
    """Return how the weights in a folder were trained; None if they are from outside, and it does not say.

    A file that cannot be read, or that belongs to other weights, raises ModelError.
    """
    record = _record(folder)
    if record is not None:
        return lineage_of_table(record["trainings"])
    return (UNKNOWN,) if _is_marked(folder) else None


def _is_marked(folder: Path) -> bool:
    try:
        return _MARK in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def read_stated(folder: Path) -> dict[str, Any]:
    """Return what is stated of the privacy of the weights in a folder; empty if nothing is."""
    return (_record(folder) or {"stated": {}})["stated"]


def _record(folder: Path) -> dict[str, Any] | None:
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        lineage_of_table(record["trainings"])
        weights, _ = str(record["weights"]), dict(record["stated"])
        if record.pop("sha256") != json_sha256(record):
            raise ValueError("its hash does not fit")
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: is not what fedloom wrote ({error}); fetch the folder again.") from error
    if weights != _weights_sha256(folder):
        raise ModelError(
            f"{path}: tells of other weights than lie beside it; fetch the folder again, or delete the file, and "
            "weights that fedloom wrote count as of unknown origin."
        )
    return record


def _weights_sha256(folder: Path) -> str:
    hasher = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        hasher.update(f"{path.name}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                hasher.update(chunk)
    return hasher.hexdigest()
