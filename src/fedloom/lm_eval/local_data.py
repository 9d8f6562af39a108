"""The files of `--data-dir`: DIR/<task>.jsonl holds the questions, DIR/<task>_shots.jsonl the solved examples."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedloom.base.errors import DataError, MissingFileError
from fedloom.data.records import Record, read_records
from fedloom.lm_eval.shipped import FORMATS
from fedloom.lm_eval.task_file import check_columns

__all__ = ["LocalData", "local_data", "required_data"]


@dataclass(frozen=True)
class LocalData:
    """A task's rows, and the SHA-256 of the files that they were read from."""

    questions: tuple[Record, ...]
    shots: tuple[Record, ...]
    sha256: str


def local_data(folder: Path | None, name: str) -> LocalData | None:
    """Return a task's local rows; None if there is no file of that name."""
    if folder is not None and not folder.is_dir():
        raise MissingFileError(f"--data-dir {folder}: no such folder; give the folder of the tasks' data files.")
    file = _file(folder, name)
    if file is None:
        return None
    shots = _file(folder, f"{name}_shots")
    digest = hashlib.sha256(file.read_bytes() + (shots.read_bytes() if shots else b"")).hexdigest()
    return LocalData(tuple(read_records(file)), tuple(read_records(shots)) if shots else (), digest)


def required_data(folder: Path | None, name: str, columns: Sequence[str], source: str) -> LocalData:
    """Return a task's local rows with these columns; without rows the refusal says what to fetch and put where."""
    found = local_data(folder, name)
    if found is None:
        place = folder if folder is not None else "DIR"
        others = ", ".join(FORMATS[1:])
        needed = f"with the columns {', '.join(columns)}; " if columns else ""
        raise MissingFileError(
            f"task '{name}': its data are not there: no {place}/{name}{FORMATS[0]} (nor {others}); fetch {source}; "
            f"{needed}put it there and give --data-dir {place}."
        )
    for record in (*found.questions, *found.shots):
        check_columns(record, name, columns)
    return found


def _file(folder: Path | None, name: str) -> Path | None:
    places = [folder / f"{name}{ending}" for ending in FORMATS] if folder else []
    found = [place for place in places if place.is_file()]
    if len(found) > 1:
        raise DataError(f"{found[0]}: {found[1].name} lies beside it; keep one of the two.")
    return found[0] if found else None
