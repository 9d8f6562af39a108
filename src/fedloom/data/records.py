"""Reading files into records: JSON, JSON Lines, CSV and Parquet, each record with the place it came from.

Nothing is repaired: a line that is no record, a byte that is none of the encoding or a key that occurs twice is
refused with file and position. A leading byte order mark is an encoding signature and is taken off.
"""

import csv
import glob
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.base.errors import ConfigError, DataError, MissingFileError
from fedloom.base.extras import library

__all__ = [
    "Record",
    "check_encoding",
    "find_files",
    "parse_json",
    "read_records",
    "read_text",
    "refuse_missing",
    "stream_records",
]

_FORMATS = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}

_LONGEST_FIELD = 2**31 - 1
_ROWS = 1024  # rows of a Parquet file held at once


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its columns, and where it stands, for messages."""

    where: str
    values: Mapping[str, Any]


def find_files(path: str) -> dict[str, Path]:
    """Return the files that a path names, by their name in the tag `file`, sorted.

    A file is itself; a folder is all its files (hidden ones apart); a pattern with * ? or [ ] is what it matches.
    The name is the file's path below the folder, or below the fixed part of the pattern.
    """
    if not path:
        raise ConfigError("path: found none; give the path of a file, of a folder of files or a pattern.")
    given = Path(path)
    if given.is_file():
        return {given.name: given}
    if given.is_dir():
        root, found = given, [child for child in given.iterdir() if child.is_file() and child.name[0] != "."]
    else:
        found = [Path(name) for name in glob.glob(path, recursive=True) if Path(name).is_file()]
        root = _fixed_part(given)
    if not found and given.is_dir():
        raise MissingFileError(f"{path}: is a folder without files; give the file, its folder or a pattern.")
    if not found:
        raise MissingFileError(f"{path}: no such file and no file found there; give a file, a folder or a pattern.")
    return {file.relative_to(root).as_posix(): file for file in sorted(found)}


def _fixed_part(pattern: Path) -> Path:
    """Return the folder above the first part of a pattern that has a wildcard."""
    return next(folder for folder in pattern.parents if not glob.has_magic(str(folder)))


def read_records(path: Path, form: str = "auto", encoding: str = "utf-8") -> list[Record]:
    """Return the records of a file of format `form`: json, jsonl, csv, parquet, or auto by the extension.

    Raises MissingFileError if there is no such file; DataError, with the position, if it is empty, of unknown
    extension, not of the encoding or not of its format; ConfigError if Parquet needs an extra that is not installed.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; give the path of a data file.")
    if not path.stat().st_size:
        raise DataError(f"{path}: holds no record, the file is empty; a data file needs at least one.")
    records = list(stream_records(path, str(path), _format_of(path) if form == "auto" else form, encoding=encoding))
    if not records:
        raise DataError(f"{path}: holds no record; a data file needs at least one.")
    return records


def stream_records(
    path: Path, name: str, form: str, columns: Sequence[str] = (), *, encoding: str = "utf-8"
) -> Iterator[Record]:
    """Yield the records of a file, which messages call `name`; JSON Lines in UTF-8 and Parquet are never held whole.

    With `columns` records have these at least, and of Parquet no others; a missing one is refused.
    """
    readers = {"json": _read_json, "jsonl": _read_jsonl, "csv": _read_csv}
    try:
        found = _read_parquet(path, name, columns) if form == "parquet" else readers[form](path, name, encoding)
        for record in found:
            refuse_missing(record.where, record.values, columns)
            yield record
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}.") from error


def refuse_missing(where: str, present: Iterable[str], columns: Sequence[str]) -> None:
    """Refuse what lacks one of the columns."""
    missing = [column for column in columns if column not in present]
    if missing:
        raise DataError(
            f"{where}: no column '{missing[0]}'; present: {', '.join(present) or 'none'}; needed are "
            f"{', '.join(columns)}."
        )


def _format_of(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise DataError(
            f"{path}: unknown extension '{suffix}', known are {' '.join(_FORMATS)}; rename the file, set `format`, "
            f"or name the wanted files of a folder with a pattern such as '{path.parent}/*.jsonl'."
        )
    return _FORMATS[suffix]


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Return a file's text; what is not of the encoding is refused with the position of the first bad byte."""
    try:
        return _decoded(path.read_bytes(), str(path), encoding).removeprefix("\ufeff")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error


def check_encoding(encoding: str) -> None:
    """Refuse what is no encoding of text that Python knows."""
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    except (LookupError, ValueError) as error:  # of no such codec, or one of bytes, such as hex
        raise ConfigError(
            f"encoding: found {encoding!r}, allowed is one of texts, such as utf-8, cp1252 or utf-16."
        ) from error


def _decoded(content: bytes, name: str, encoding: str, start: int = 0) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        byte = error.object[error.start] if error.start < len(error.object) else 0
        called = "UTF-8" if encoding == "utf-8" else encoding
        raise DataError(
            f"{name}: byte {start + error.start} is 0x{byte:02x}, not {called}; convert the file to UTF-8, or "
            "set `encoding` to its own where the source has it."
        ) from error


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{twin}' occurs twice in one object")
    return table


def parse_json(text: str, where: str, hint: str = "") -> Any:
    """Return the value of a JSON text; refuse what is malformed, nested too deeply or has a key twice in one object."""
    try:
        return json.loads(text, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON: {error}; mend it{hint}.") from error


def _read_json(path: Path, name: str, encoding: str) -> Iterator[Record]:
    text = read_text(path, encoding)
    if not text.strip():
        return
    whole = parse_json(text, name, ' (one object per line is format = "jsonl")')
    if not isinstance(whole, list):
        raise DataError(
            f"{name}: found one JSON {type(whole).__name__}, allowed is a list of records; "
            "{user: [records]} is read by the source 'fedllm_bench'."
        )
    for number, values in enumerate(whole, start=1):
        yield _record(f"{name}, record {number}", values)


def _read_jsonl(path: Path, name: str, encoding: str) -> Iterator[Record]:
    start = 0
    with path.open("rb") as file:
        # Bytes of a line's end are one in UTF-8 alone.
        lines = file if encoding == "utf-8" else io.BytesIO(read_text(path, encoding).encode())
        for number, line in enumerate(lines, start=1):
            text = _decoded(line, name, "utf-8", start).removeprefix("" if start else "\ufeff")
            start += len(line)
            if text.strip():
                where = f"{name}, line {number}"
                yield _record(where, parse_json(text, where))


def _record(where: str, values: Any) -> Record:
    if not isinstance(values, dict):
        raise DataError(f"{where}: found {type(values).__name__}, allowed is an object with named columns.")
    return Record(where, values)


def _read_csv(path: Path, name: str, encoding: str) -> Iterator[Record]:
    csv.field_size_limit(_LONGEST_FIELD)  # of the library's own 131,072 characters a user's file is not to blame
    rows = csv.reader(io.StringIO(read_text(path, encoding), newline=""), strict=True)
    header: list[str] = []
    try:
        for row in rows:
            where = f"{name}, line {rows.line_num}"
            if not header:
                header = _header(row, where)
            elif row:
                yield _csv_record(header, row, where)
    except csv.Error as error:
        raise DataError(f"{name}, line {rows.line_num}: not valid CSV: {error}; mend it.") from error


def _header(row: list[str], where: str) -> list[str]:
    if len(set(row)) != len(row):
        raise DataError(f"{where}: a column name occurs twice: {', '.join(row)}; rename one.")
    return row


def _csv_record(header: list[str], row: list[str], where: str) -> Record:
    if len(row) != len(header):
        raise DataError(f"{where}: found {len(row)} cells, the header names {len(header)}: {', '.join(header)}.")
    return Record(where, dict(zip(header, row, strict=True)))


def _read_parquet(path: Path, name: str, columns: Sequence[str]) -> Iterator[Record]:
    arrow, parquet = (library(module, f"{name}: Parquet") for module in ("pyarrow", "pyarrow.parquet"))
    try:
        with parquet.ParquetFile(path) as file:
            refuse_missing(name, file.schema_arrow.names, columns)
            batches = file.iter_batches(batch_size=_ROWS, columns=list(columns) or None)
            for number, values in enumerate((row for batch in batches for row in batch.to_pylist()), start=1):
                yield Record(f"{name}, record {number}", values)
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{name}: not valid Parquet: {str(error).splitlines()[0]}; write or fetch it anew.") from error
