"""From records to examples: one recipe of form, column names, tags, duplicates and malformed records for all files."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fedloom.base.errors import DataError
from fedloom.contracts.examples import Example
from fedloom.data.forms import FORMS, Fields, Form, check_text, detect
from fedloom.data.records import Record

__all__ = ["FormName", "Malformed", "Recipe", "brings_in"]

FormName = Literal[
    "auto",
    "messages",
    "prompt_completion",
    "alpaca",
    "conversations",
    "preference",
    "text",
    "transcript",
    "tree",
    "thread",
]
Malformed = Literal["refuse", "drop"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How the records of a data set become examples."""

    form: FormName = "auto"
    columns: Mapping[str, str] | None = None
    """Name in the form -> name in the file."""
    tags: Mapping[str, str] | None = None
    """Tag -> name in the file; the column must hold text or whole numbers."""
    unique: str = ""
    """A column of the file of whose equal values only the first record is kept; "" keeps all."""
    malformed: Malformed = "refuse"
    """What happens to a record that is no example: refuse the file, or drop the record and log how many."""

    def examples(self, records: Sequence[Record], constant: Mapping[str, str] | None = None) -> list[Example]:
        """Return the examples of records, in their order; `constant` tags are set on all of them."""
        columns = self.columns or {}
        form = FORMS[detect(Fields(records[0], columns)) if self.form == "auto" else self.form]
        kept: list[Example] = []
        dropped: list[str] = []
        for record in self._first_of_each(records):
            try:
                kept.append(self._example(form, Fields(record, columns), constant or {}))
            except DataError as error:
                if self.malformed == "refuse":
                    raise
                dropped.append(str(error))
        return _checked(kept, dropped, records[0].where)

    def _example(self, form: Form, fields: Fields, constant: Mapping[str, str]) -> Example:
        tags = {**constant, **{tag: _tag(fields.record, column) for tag, column in (self.tags or {}).items()}}
        try:
            return form.build(fields, tags)
        except DataError as error:
            where = fields.record.where
            text = str(error)
            raise DataError(text if text.startswith(where) else f"{where}: {text}") from error

    def _first_of_each(self, records: Sequence[Record]) -> Iterable[Record]:
        if not self.unique:
            return records
        first: dict[str, Record] = {}
        for record in records:
            value = check_text(_column(record, self.unique), f"{record.where}, column '{self.unique}'")
            first.setdefault(value, record)
        _log.info(
            "%s: %d of %d records repeat a '%s'", records[0].where, len(records) - len(first), len(records), self.unique
        )
        return first.values()


def brings_in(unique: str, form: FormName, malformed: Malformed) -> str:
    """Return the setting by which one record decides whether others come in; "" where each is kept for itself.

    Of two like records the second comes in when the first one leaves; and the first one of all tells the form of
    those behind it, by which they are examples or dropped.
    """
    if form == "auto" and malformed == "drop":
        return "data.form = 'auto' with data.malformed = 'drop', where the first record tells what the others are,"
    return f"data.unique = '{unique}'" if unique else ""


def _checked(kept: list[Example], dropped: list[str], where: str) -> list[Example]:
    if dropped:
        _log.warning("%d of %d records dropped, the first: %s", len(dropped), len(dropped) + len(kept), dropped[0])
    if not kept:
        raise DataError(f"{where}: all {len(dropped)} records of the file are malformed, the first: {dropped[0]}")
    return kept


def _column(record: Record, column: str) -> Any:
    if column not in record.values:
        present = ", ".join(record.values) or "none"
        raise DataError(f"{record.where}: no column '{column}'; present: {present}; name one of these.")
    return record.values[column]


def _tag(record: Record, column: str) -> str:
    value = _column(record, column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value == "":
        raise DataError(f"{record.where}, column '{column}': found empty text, a tag needs a value.")
    if not isinstance(value, str):
        raise DataError(f"{record.where}, column '{column}': found {value!r}, a tag is text or a whole number.")
    return check_text(value, f"{record.where}, column '{column}'")
