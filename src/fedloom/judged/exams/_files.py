"""Files of questions: read whole, and refused with the layout that was found and what to fetch."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.base.errors import ConfigError, DataError, MissingFileError
from fedloom.text.words import well_formed

__all__ = ["Record", "Wanted", "layout_of", "numbered", "read", "records", "text_of"]

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What a file of an exam must be; every refusal says it."""

    key: str
    """The key of the exam's table that names the file, such as `mt_bench: path`."""
    layout: str
    """What it holds."""
    fetch: str
    """Where it comes from."""

    def missing(self, path: str) -> str:
        """Return the refusal of a file that is not there."""
        found = f"'{path}' is no file" if path else "found none"
        return f"{self.key}: {found}, allowed is {self.layout}; {self.fetch}, and name it by this key."

    def wrong(self, path: str, found: str) -> DataError:
        """Return the refusal of a file with another layout."""
        return DataError(f"{self.key}: {path}: found {found}, allowed is {self.layout}; {self.fetch}.")


def read(path: str, wanted: Wanted) -> Any:
    """Return what a file holds: the rows of `.csv`, the lines of `.jsonl`, the value of any other, taken for JSON."""
    if not path:
        raise ConfigError(wanted.missing(path))
    file = Path(path)
    if not file.is_file():
        raise MissingFileError(wanted.missing(path))
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise wanted.wrong(path, f"bytes that are no UTF-8 ({error.reason} at byte {error.start})") from error
    try:
        value = _parsed(text, file.suffix)
    except (ValueError, RecursionError, csv.Error) as error:
        # What the csv module says of a quote that nothing closes names no cause.
        said = str(error).replace("unexpected end of data", "a quote that nothing closes")
        raise wanted.wrong(path, f"text that cannot be read as {file.suffix or 'JSON'} ({said})") from error
    broken = _half_pair(value)
    if broken is not None:
        raise DataError(
            f"{wanted.key}: {path}: record {broken}: found half a surrogate pair, which is no text, allowed is text; "
            "correct the record or leave it out."
        )
    return value


def _parsed(text: str, suffix: str) -> Any:
    if suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text), strict=True))
    if suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    return json.loads(text)


def _half_pair(value: Any) -> str | None:
    """Return where half a surrogate pair stands, which an escape in JSON makes and no tokenizer takes; else None.

    Without recursion: what JSON may nest just so is too deep for a function within functions.
    """
    left: list[tuple[str, Any]] = [("", value)]
    while left:
        place, one = left.pop()
        match one:
            case str() if well_formed(one) != one:
                return place.removeprefix("/") or "0"
            case dict():
                left += [(place, key) for key in one] + [(f"{place}/{well_formed(str(k))}", v) for k, v in one.items()]
            case list():
                left += [(f"{place}/{index}", entry) for index, entry in reversed([*enumerate(one)])]
            case _:
                pass
    return None


def records(path: str, wanted: Wanted) -> list[Record]:
    """Return the records of a file that must be a list of objects, one at least."""
    found = read(path, wanted)
    if not isinstance(found, list) or not found or not all(isinstance(record, dict) for record in found):
        raise wanted.wrong(path, layout_of(found))
    return found


def numbered(path: str, wanted: Wanted) -> list[Record]:
    """Return records of which no `question_id` is a truth value, which Python takes for a number."""
    found = records(path, wanted)
    for index, record in enumerate(found):
        if isinstance(record.get("question_id"), bool):
            said = json.dumps(record["question_id"])
            raise wanted.wrong(path, f"in record {index} the question_id {said}, which is neither number nor text")
    return found


def layout_of(value: Any) -> str:
    """Return a few words that say how a value is built, from its first entry.

    >>> layout_of([{"prompt": "a", "chosen": "b"}]), layout_of({"English": [1]})
    ('a list of 1 objects with the fields chosen, prompt', "an object of 1 keys, first 'English': a list of 1 numbers")
    """
    match value:
        case list() if value and isinstance(value[0], dict):
            return f"a list of {len(value)} objects with the fields {', '.join(sorted(map(str, value[0]))) or 'none'}"
        case list():
            return f"a list of {len(value)} {f'{_kind(value[0])}s' if value else 'entries'}"
        case dict() if value:
            key, first = next(iter(value.items()))
            return f"an object of {len(value)} keys, first '{key}': {layout_of(first)}"
        case _:
            return f"a single {_kind(value)}"


def _kind(value: Any) -> str:
    kinds = {str: "text", int: "number", float: "number", list: "list", dict: "object", bool: "truth value"}
    return kinds.get(type(value), "null")


def text_of(record: Record, names: Sequence[str], where: str) -> str:
    """Return the first of the named fields that a record has, a text that is not blank; `where` names the record."""
    present = [name for name in names if name in record]
    if not present:
        fields = ", ".join(sorted(map(str, record))) or "none"
        raise DataError(f"{where}: found the fields {fields}, allowed are records with {' or '.join(names)}.")
    value = record[present[0]]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {present[0]}: found {value!r}, allowed is a text; leave the record out or fill it.")
    return value
