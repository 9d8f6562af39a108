"""Records of the hub's data sets through the library `datasets`, by name or from a local folder."""

from pathlib import Path
from typing import Any

from fedloom.base.errors import DataError
from fedloom.base.extras import library
from fedloom.data.records import Record

__all__ = ["hub_records"]


def hub_records(path: str, *, subset: str, split: str, revision: str) -> list[Record]:
    """Return the records of one split of a data set on the hub, or in a local folder.

    Raises ConfigError if `datasets` is not installed, and DataError if the set, the subset or the split cannot be had;
    it says what to fetch.
    """
    datasets = library("datasets", f"{path}: a data set by hub name")
    try:
        if (Path(path) / "dataset_dict.json").is_file() or (Path(path) / "state.json").is_file():
            rows: Any = _saved(datasets.load_from_disk(path), split, path)
        else:
            rows = datasets.load_dataset(path, subset or None, split=split, revision=revision or None)
    except (OSError, ValueError, RuntimeError) as error:
        what = (
            f"'{path}'" + (f", subset '{subset}'" if subset else "") + (f", revision '{revision}'" if revision else "")
        )
        raise DataError(
            f"{what}, split '{split}': cannot be loaded: {_first_line(error)}; {_advice(error, path)}."
        ) from error
    return [Record(f"{path}[{split}], record {number}", dict(row)) for number, row in enumerate(rows, start=1)]


def _saved(found: Any, split: str, path: str) -> Any:
    if not isinstance(found, dict):
        return found
    if split not in found:
        raise ValueError(f"{path} has the splits {', '.join(found)}")
    return found[split]


def _advice(error: Exception, path: str) -> str:
    if isinstance(error, ConnectionError):
        fetch = f"hf download {path} --repo-type dataset --local-dir FOLDER"
        return f'fetch it where there is a network ({fetch}) and set path = "FOLDER"'
    return "check path, subset, split and revision"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
