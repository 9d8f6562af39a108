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
    report.md           the final table; its presence says that the run is complete

Logs grow by whole lines; a checkpoint remembers how long they were, and resuming cuts them back to that, so that a
resumed run writes the same lines again. Everything else is written under a temporary name and renamed.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fedloom.base.errors import MissingFileError, RunError
from fedloom.base.files import atomic_folder, disk_errors, file_sha256, held, json_sha256, refuse_filled, sync
from fedloom.base.tree import Tree

__all__ = ["AUDIT_LOG", "LOGS", "Checkpoint", "RunDirectory"]

LOGS = ("metrics.jsonl", "ledger.jsonl", "results.jsonl")
AUDIT_LOG = "audit.jsonl"
"""A log that is there where the run asks for it."""
_KEEP = 2  # checkpoints kept; one would do, the second survives a disk that lies about a rename
_UNREFINED = "_unrefined"


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: trees by file name, and plain values."""

    trees: Mapping[str, Tree]
    values: Mapping[str, Any]


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

    def lines(self, log: str) -> list[dict[str, Any]]:
        """Return the records of a log; a damaged line is refused by its number."""
        records: list[dict[str, Any]] = []
        for number, line in enumerate(self.read(log).splitlines(), 1):
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                mend = "delete the folder and run it anew" if self.complete else "`fedloom resume` repairs its tail"
                raise RunError(f"{self.path / log}: line {number} is no JSON; {mend}.") from error
        return records

    def append(self, log: str, records: Sequence[Mapping[str, Any]]) -> None:
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
                with (new / name).open("rb") as file:
                    sync(file)
            state = {
                "values": dict(checkpoint.values),
                "log_bytes": {log: (self.path / log).stat().st_size for log in self._logs()},
                "sha256": {name: file_sha256(new / name) for name in checkpoint.trees},
                "values_sha256": json_sha256(checkpoint.values),
            }
            with (new / "state.json").open("w") as file:
                json.dump(state, file)
                sync(file)
        for old in self._checkpoints()[:-_KEEP]:
            shutil.rmtree(old)

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is anything to go on from."""
        return bool(self._checkpoints())

    def _checkpoints(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob("round_*"), key=_number)

    def restore(self) -> Checkpoint | None:
        """Return the last checkpoint, the logs cut back to it; None if there is none. A damaged one is refused."""
        folders = self._checkpoints()
        if not folders:
            self._cut(dict.fromkeys(self._logs(), 0))
            return None
        folder = folders[-1]
        try:
            state = json.loads((folder / "state.json").read_text())
            if not isinstance(state["values"], dict):
                raise TypeError("its values are no table")
            if state["values_sha256"] != json_sha256(state["values"]):
                raise ValueError("its values differ from what was saved")
            damaged = [name for name, digest in state["sha256"].items() if file_sha256(folder / name) != digest]
            if damaged:
                raise RunError(
                    f"{folder / damaged[0]}: its bytes differ from what was saved; {_other(folder, folders)}"
                )
            trees = {name: load_file(folder / name) for name in state["sha256"]}
            self._cut(state["log_bytes"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(f"{folder}: the checkpoint cannot be read ({error}); {_other(folder, folders)}") from error
        return Checkpoint(trees, state["values"])

    def _logs(self) -> tuple[str, ...]:
        return (*LOGS, AUDIT_LOG) if (self.path / AUDIT_LOG).is_file() else LOGS

    def _cut(self, log_bytes: Mapping[str, int]) -> None:
        for log, size in log_bytes.items():
            if not (self.path / log).is_file():
                raise RunError(f"{self.path / log}: missing; the run directory is damaged: start the run anew.")
            found = (self.path / log).stat().st_size
            if found < size:
                raise RunError(
                    f"{self.path / log}: has {found} bytes, the checkpoint knows of {size}; lines were lost."
                )
            os.truncate(self.path / log, size)


def _number(folder: Path) -> tuple[int, bool]:
    digits = folder.name.removeprefix("round_").removesuffix(_UNREFINED)
    return int(digits) if digits.isdigit() else -1, not folder.name.endswith(_UNREFINED)


def _other(folder: Path, folders: Sequence[Path]) -> str:
    if len(folders) > 1:
        return f"delete {folder.name} to go on from {folders[-2].name}."
    return "it is the only one: start the run anew."
