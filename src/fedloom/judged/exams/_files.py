"""Files of questions: read whole, and refused with the layout that was found and what to fetch.

Of held-out instructions three layouts are read, FedLLM-Bench's test sets and any list of like records:

    {"Spanish": [{"instruction": ..., "reference": ...}, ...], ...}     Aya: by language
    [{"instruction": ..., "language": ...}, ...]                        WildChat
    [{"instruction": ...}, ...]                                         Chatbot

A record of a list may have `reference`, `language` and `category`; other fields are kept nowhere.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.base.errors import ConfigError, DataError, MissingFileError
from fedloom.contracts.evaluation import Question
from fedloom.data.records import parse_json, read_text, stream_records
from fedloom.text.words import well_formed

__all__ = ["LAYOUTS", "Record", "Wanted", "instructions", "layout_of", "numbered", "requests"]

Record = Mapping[str, Any]

LAYOUTS = (
    "a JSON list of {instruction, reference?, language?, category?} or an object {language: [{instruction, "
    "reference?}]}"
)


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


# ------------------------------------------------------------------------------------------------------------ questions


def numbered(path: str, wanted: Wanted) -> list[Record]:
    """Return records of which no `question_id` is a truth value, which Python takes for a number."""
    found = _records(_read(path, wanted), path, wanted)
    for index, record in enumerate(found):
        if isinstance(record.get("question_id"), bool):
            said = json.dumps(record["question_id"])
            raise wanted.wrong(path, f"in record {index} the question_id {said}, which is neither number nor text")
    return found


def requests(path: str, wanted: Wanted, *, end: str = "") -> list[Question]:
    """Return the requests of a file, `end` behind each; a `category` or `type` that a record has is kept."""
    found: list[Question] = []
    for index, record in enumerate(_records(_read(path, wanted), path, wanted)):
        text = _text_of(record, ("goal", "instruction", "prompt"), f"{wanted.key}: {path}: record {index}")
        category = record.get("category") or record.get("type") or ""
        found.append(Question(str(index), (f"{text}{end}",), str(category)))
    return found


def instructions(path: str, wanted: Wanted) -> list[Question]:
    """Return the questions of a file in its order; ids are places in the list, behind the language in an object."""
    found = _read(path, wanted)
    groups: dict[str, Any] = found if isinstance(found, dict) and found else {"": found}
    return [
        _instruction(record, f"{language}/{index}" if language else str(index), language, f"{wanted.key}: {path}")
        for language, group in groups.items()
        for index, record in enumerate(_records(group, path, wanted, whole=found))
    ]


def _instruction(record: Record, name: str, language: str, where: str) -> Question:
    where = f"{where}: record {name}"
    told = {key: _text_of(record, (key,), where) for key in ("reference", "language", "category") if record.get(key)}
    language = language or told.get("language", "")
    references = (told["reference"],) if "reference" in told else ()
    tags = {"language": language} if language else {}
    return Question(name, (_text_of(record, ("instruction",), where),), told.get("category", ""), references, tags)


def _text_of(record: Record, names: Sequence[str], where: str) -> str:
    """Return the first of the named fields that a record has, a text that is not blank; `where` names the record."""
    present = [name for name in names if name in record]
    if not present:
        fields = ", ".join(sorted(map(str, record))) or "none"
        raise DataError(f"{where}: found the fields {fields}, allowed are records with {' or '.join(names)}.")
    value = record[present[0]]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {present[0]}: found {value!r}, allowed is a text; leave the record out or fill it.")
    return value


# -------------------------------------------------------------------------------------------------------------- reading


def _read(path: str, wanted: Wanted) -> Any:
    """Return what a file holds: the rows of `.csv`, the lines of `.jsonl`, the value of any other, taken for JSON."""
    if not path:
        raise ConfigError(wanted.missing(path))
    file = Path(path)
    if not file.is_file():
        raise MissingFileError(wanted.missing(path))
    try:
        if file.suffix in (".csv", ".jsonl"):
            value: Any = [record.values for record in stream_records(file, file.name, file.suffix[1:])]
        else:
            value = parse_json(read_text(file), file.name)
    except DataError as error:
        # What the csv module says of a quote that nothing closes names no cause.
        said = str(error).replace("unexpected end of data", "a quote that nothing closes").removesuffix(".")
        raise wanted.wrong(path, f"text that cannot be read as {file.suffix or 'JSON'} ({said})") from error
    broken = _half_pair(value)
    if broken is not None:
        raise DataError(
            f"{wanted.key}: {path}: record {broken}: found half a surrogate pair, which is no text, allowed is text; "
            "correct the record or leave it out."
        )
    return value


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


def _records(found: Any, path: str, wanted: Wanted, *, whole: Any = None) -> list[Record]:
    """Return what must be a list of objects, one at least; `whole` is what the refusal of a part describes."""
    if not isinstance(found, list) or not found or not all(isinstance(record, dict) for record in found):
        raise wanted.wrong(path, layout_of(found if whole is None else whole))
    return found


def layout_of(value: Any) -> str:
    """Return a few words that say how a value is built, from its first entry.

    >>> layout_of([{"prompt": "a", "chosen": "b"}]), layout_of({"English": [1]})
    ('a list of 1 objects with the fields chosen, prompt', "an object of 1 keys, first 'English': a list of 1 numbers")
    """
    kinds = {str: "text", int: "number", float: "number", list: "list", dict: "object", bool: "truth value"}
    match value:
        case [dict() as first, *_]:
            return f"a list of {len(value)} objects with the fields {', '.join(sorted(map(str, first))) or 'none'}"
        case [first, *_]:
            return f"a list of {len(value)} {kinds.get(type(first), 'null')}s"
        case []:
            return "a list of 0 entries"
        case dict() if value:
            key, first = next(iter(value.items()))
            return f"an object of {len(value)} keys, first '{key}': {layout_of(first)}"
        case _:
            return f"a single {kinds.get(type(value), 'null')}"
