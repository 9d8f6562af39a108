"""Reading the upstream sets row by row, so that a set of millions of dialogues needs no memory for those left out."""

from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.base.errors import ConfigError, DataError, MissingFileError
from fedloom.base.files import file_sha256
from fedloom.data.hub_records import hub_records
from fedloom.data.records import Record, find_files, parse_json

__all__ = ["Upstream", "open_upstream"]

_READ = (".parquet", ".jsonl", ".ndjson", ".json")
_ROWS = 1024  # rows of a Parquet file held at once


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
                yield _checked(row.where, row.values, columns)
        for name, path in self.files.items():
            yield from _parquet(path, name, columns) if path.suffix == ".parquet" else _json_lines(path, name, columns)

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


def _json_lines(path: Path, name: str, columns: Sequence[str]) -> Iterator[Record]:
    """Yield one record per line; a file of one JSON array, as some downloads are, is told from the first character.

    A leading byte order mark is an encoding signature and is skipped.
    """
    with path.open("rb") as file:
        start = len(BOM_UTF8) if file.read(len(BOM_UTF8)) == BOM_UTF8 else 0
        file.seek(start)
        if file.read(1) == b"[":
            raise DataError(f"{name}: found one JSON array, allowed is one object per line; write it as JSON Lines.")
        file.seek(start)
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _checked(f"{name}, line {number}", _parsed(line, f"{name}, line {number}"), columns)


def _parsed(line: bytes, where: str) -> Any:
    try:
        return parse_json(line.decode("utf-8"), where)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start} is no UTF-8; convert the file to UTF-8.") from error


def _parquet(path: Path, name: str, columns: Sequence[str]) -> Iterator[Record]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ConfigError(f"{name}: Parquet needs an extra; run: pip install fedloom[parquet]") from error
    try:
        with parquet.ParquetFile(path) as file:
            _refuse_missing(name, file.schema_arrow.names, columns)
            batches = file.iter_batches(batch_size=_ROWS, columns=list(columns))
            for number, values in enumerate((row for batch in batches for row in batch.to_pylist()), start=1):
                yield Record(f"{name}, record {number}", values)
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{name}: not valid Parquet: {str(error).splitlines()[0]}; fetch it anew.") from error


def _checked(where: str, values: Any, columns: Sequence[str]) -> Record:
    if not isinstance(values, Mapping):
        raise DataError(f"{where}: found {type(values).__name__}, allowed is an object with named columns.")
    _refuse_missing(where, list(values), columns)
    return Record(where, values)


def _refuse_missing(where: str, present: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in present]
    if missing:
        raise DataError(
            f"{where}: no column '{missing[0]}'; present: {', '.join(present) or 'none'}; the build reads "
            f"{', '.join(columns)}: give the set that it is made of."
        )
