"""The run directory: what a run was asked, what it did, and where it can go on after being killed.

    run.toml            resolved: every default written out
    source.toml         the file as given, and the overrides
    environment.json    versions, devices, commit, command line; dirty.diff beside it if the tree was not clean
    partition.json      who got how much of what
    schedule.jsonl      who is asked in which round
    metrics.jsonl       one line per number
    ledger.jsonl        all that left a client
    audit.jsonl         what the server sees of each client's row, where `audit_log` asks for it
    truth.json          what a simulation knows of its data and no component may, where there is any
    results.jsonl       one line per evaluated example
    checkpoints/        round_00010/: safetensors files and state.json
    adapter/            the result in PEFT's format (adapters/<client>/ where every client has its own)
    samples/            a few inputs and outputs per evaluation
    deployment.json     how it was served, where clients are on machines of their own; manifest.json what they are asked
    report.md           the final table; its presence says that the run is complete

Logs grow by whole lines; a checkpoint remembers how long they were and their hashes, and resuming cuts them back to
that, so that a resumed run writes the same lines again. Where a log has lost lines, an older checkpoint that it still
covers is gone on from. Everything else is written under a temporary name and renamed.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fedloom.base.errors import MissingFileError, RunError
from fedloom.base.files import (
    atomic_folder,
    disk_errors,
    file_sha256,
    held,
    json_sha256,
    refuse_filled,
    remove_folder,
    sync,
)
from fedloom.base.tree import Tree

__all__ = ["AUDIT_LOG", "DEPLOYMENT", "LOGS", "Checkpoint", "RunDirectory"]

LOGS = ("metrics.jsonl", "ledger.jsonl", "results.jsonl")
DEPLOYMENT = "deployment.json"
"""How a run was served whose clients are on machines of their own."""
AUDIT_LOG = "audit.jsonl"
"""A log that is there where the run asks for it."""
_KEEP = 2  # checkpoints kept; one would do, the second survives a disk that lies about a rename
_UNREFINED = "_unrefined"


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: trees by file name, and plain values."""

    trees: Mapping[str, Tree]
    values: Mapping[str, Any]
    lost: str = ""
    """Why it is not the last one that is gone on from."""


@dataclass(frozen=True)
class RunDirectory:
    """One run's folder; whoever writes to it holds it."""

    path: Path

    @classmethod
    def create(cls, path: Path, texts: Mapping[str, str]) -> "RunDirectory":
        """Make a new run directory with the given files; an existing one that is not empty is refused."""
        path = path.resolve()
        refuse_filled(path, f"choose another --out, or `fedloom resume {path}`")
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(path) as folder:
            for name in LOGS:
                (folder / name).touch()
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8")
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Open an existing run directory."""
        if not (path / "run.toml").is_file():
            raise MissingFileError(f"{path}: no run directory (it has no run.toml); give the folder of a run.")
        return cls(path)

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        """Keep other processes from writing while the block runs; the system lets go when a process dies."""
        with held(self.path / ".lock", f"{self.path}: another process is at work in it; wait for it to end."):
            yield

    @property
    def complete(self) -> bool:
        """Whether the run has ended well."""
        return (self.path / "report.md").exists()

    def read(self, name: str) -> str:
        """Return the text of a file of the run."""
        file = self.path / name
        if not file.is_file():
            raise MissingFileError(f"{file}: missing; the run directory is damaged or the run has not got that far.")
        try:
            return file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RunError(f"{file}: is no UTF-8 text ({error.reason}); the run directory is damaged.") from error

    def table(self, name: str) -> dict[str, Any]:
        """Return the JSON object in a file of the run; a damaged one is refused."""
        try:
            found = json.loads(self.read(name))
            if not isinstance(found, dict):
                raise TypeError("it is no table")
        except (ValueError, TypeError, RecursionError) as error:
            raise RunError(
                f"{self.path / name}: is not what fedloom wrote ({error}); restore it from a copy or start a new run."
            ) from error
        return found

    def lines(self, log: str) -> list[dict[str, Any]]:
        """Return the records of a log; a damaged line is refused by its number."""
        records: list[dict[str, Any]] = []
        for number, line in enumerate(self.read(log).splitlines(), 1):
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise RunError(
                    f"{self.path / log}: line {number} is no JSON; `fedloom resume {self.path}` repairs it."
                ) from error
        return records

    def append(self, log: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Append records to a log, each one line."""
        with disk_errors(self.path / log), (self.path / log).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
            file.flush()

    def save(self, number: int, checkpoint: Checkpoint, *, unrefined: bool = False) -> None:
        """Save a checkpoint whole, then remove those that are older than the last two.

        An `unrefined` one is that of a round whose refinement is still to come; it lies beside the round's own.
        """
        folder = self.path / "checkpoints" / f"round_{number:05d}{_UNREFINED * unrefined}"
        with atomic_folder(folder) as new:
            for name, tree in checkpoint.trees.items():
                save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tree.items()}, new / name)
            state = {
                "number": number,
                "values": dict(checkpoint.values),
                "logs": {log: self._synced(log) for log in self._logs()},
                "sha256": {name: file_sha256(new / name) for name in checkpoint.trees},
            }
            (new / "state.json").write_text(json.dumps(state | {"state_sha256": json_sha256(state)}))
        for old in self._checkpoints()[:-_KEEP]:
            remove_folder(old)

    def _synced(self, log: str) -> dict[str, Any]:
        """Return how long a log is and its hash, once the disk has it."""
        with (self.path / log).open("rb+") as file:
            sync(file)
        return {"bytes": (self.path / log).stat().st_size, "sha256": file_sha256(self.path / log)}

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is anything to go on from."""
        return bool(self._checkpoints())

    def _checkpoints(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob("round_*"), key=_number)

    def mended(self) -> bool:
        """Return whether the logs hold all that the last checkpoint knows; what is torn behind that is cut off."""
        folders = self._checkpoints()
        if not folders or self._lost(logs := self._state(folders[-1], folders[:-1])["logs"]):
            return False
        self._cut(logs)
        return True

    def restore(self) -> Checkpoint | None:
        """Return the last checkpoint that the logs cover, the logs cut back to it; None if there is none.

        A damaged one is refused.
        """
        for left in (self.path / "checkpoints").glob(".round_*"):  # a kill came while they were written or removed
            shutil.rmtree(left)
        folders = self._checkpoints()
        if not folders:
            self._cut({log: {"bytes": 0} for log in self._logs()})
            return None
        lost: list[str] = []
        for place in reversed(range(len(folders))):
            folder, older = folders[place], folders[:place]
            state = self._state(folder, older)
            lost += [where] if (where := self._lost(state["logs"])) else []
            if not where:
                break
        else:
            raise RunError(f"{lost[0]}; no checkpoint knows of less: start the run anew.")
        damaged = [
            name
            for name, digest in state["sha256"].items()
            if not (folder / name).is_file() or file_sha256(folder / name) != digest
        ]
        if damaged:
            raise RunError(f"{folder / damaged[0]}: its bytes differ from what was saved; {_other(folder, older)}")
        try:
            trees = {name: load_file(folder / name) for name in state["sha256"]}
        except (OSError, SafetensorError) as error:
            raise RunError(f"{folder}: the checkpoint cannot be read ({error}); {_other(folder, older)}") from error
        self._cut(state["logs"])
        return Checkpoint(trees, state["values"], f"{lost[0]}: going on from {folder.name}" if lost else "")

    @staticmethod
    def _state(folder: Path, older: Sequence[Path]) -> dict[str, Any]:
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            if state.pop("state_sha256", "") != json_sha256(state) or state["number"] != _number(folder)[0]:
                raise ValueError("it differs from what was saved, or another version has saved it")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{folder / 'state.json'}: the checkpoint cannot be read ({error}); {_other(folder, older)}"
            ) from error
        return state

    def _lost(self, logs: Mapping[str, Mapping[str, Any]]) -> str:
        """Return which log does not begin as a checkpoint knows it; "" where all do."""
        for log, known in logs.items():
            if not (self.path / log).is_file():
                return f"{self.path / log}: missing"
            size = (self.path / log).stat().st_size
            if size < known["bytes"]:
                return f"{self.path / log}: has {size} bytes, the checkpoint knows of {known['bytes']}; lines were lost"
            with (self.path / log).open("rb") as file:
                if hashlib.sha256(file.read(known["bytes"])).hexdigest() != known["sha256"]:
                    return f"{self.path / log}: begins otherwise than the checkpoint knows it"
        return ""

    def _logs(self) -> tuple[str, ...]:
        return (*LOGS, AUDIT_LOG) if (self.path / AUDIT_LOG).is_file() else LOGS

    def _cut(self, logs: Mapping[str, Mapping[str, Any]]) -> None:
        for log, known in logs.items():
            if not (self.path / log).is_file():
                raise RunError(f"{self.path / log}: missing; the run directory is damaged: start the run anew.")
            if (self.path / log).stat().st_size != known["bytes"]:
                os.truncate(self.path / log, known["bytes"])


def _number(folder: Path) -> tuple[int, bool]:
    digits = folder.name.removeprefix("round_").removesuffix(_UNREFINED)
    return int(digits) if digits.isdigit() else -1, not folder.name.endswith(_UNREFINED)


def _other(folder: Path, older: Sequence[Path]) -> str:
    if older:
        return f"delete {folder.name} to go on from {older[-1].name}."
    return "there is no older one: start the run anew."
