"""Reading the upstream sets row by row, so that a set of millions of dialogues needs no memory for those left out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.base.errors import ConfigError, DataError, MissingFileError
from fedloom.base.files import file_sha256
from fedloom.data.hub_records import hub_records
from fedloom.data.records import Record, find_files, refuse_missing, stream_records

__all__ = ["Upstream", "open_upstream"]

_READ = (".parquet", ".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class Upstream:
    """An upstream set: its files by name in reading order, or its name on the hub."""

    files: dict[str, Path]
    hub: str = ""
    revision: str = ""
    folder: Path | None = None
    """The folder that was given, if one was."""

    def rows(self, columns: Sequence[str]) -> Iterator[Record]:
        """Yield the rows in order; a column that is missing is refused with those present."""
        if self.hub:
            for row in hub_records(self.hub, subset="", split="train", revision=self.revision):
                refuse_missing(row.where, row.values, columns)
                yield row
        for name, path in self.files.items():
            form = "parquet" if path.suffix == ".parquet" else "jsonl"
            yield from stream_records(path, name, form, columns)

    def identity(self) -> dict[str, Any]:
        """Return what the rows depend on: size and SHA-256 of every file by name, or name and revision on the hub."""
        if self.hub:
            return {"hub": self.hub, "revision": self.revision}
        return {name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for name, path in self.files.items()}


def open_upstream(source: str, revision: str = "") -> Upstream:
    """Return the upstream set at a path (a file, a folder, a pattern), or that of a hub name such as allenai/WildChat.

    Of a folder the Parquet and JSON Lines files are read, in it and below, in the order of their names.
    """
    folder = Path(source)
    if folder.is_dir():
        found = sorted(
            path for path in folder.rglob("*") if path.suffix in _READ and path.is_file() and not _hidden(path, folder)
        )
        if not found:
            raise MissingFileError(
                f"{source}: holds no file of the kinds {' '.join(_READ)}; give the folder of the set."
            )
        return Upstream({path.relative_to(folder).as_posix(): path for path in found}, folder=folder)
    if source.count("/") == 1 and not folder.exists() and folder.suffix not in _READ and "*" not in source:
        if not revision:
            raise ConfigError(
                f"--from: '{source}' is a hub name; give its --revision, or no later build can repeat this."
            )
        return Upstream({}, source, revision)
    files = find_files(source)
    odd = [name for name, path in files.items() if path.suffix not in _READ]
    if odd:
        raise DataError(f"{source}: found '{odd[0]}', allowed are files of the kinds {' '.join(_READ)}.")
    return Upstream(files)


def _hidden(path: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(below).parts)
