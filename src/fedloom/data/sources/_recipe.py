"""From records to examples: one recipe of form, column names, tags, duplicates and malformed records for all files."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fedloom.base.errors import ConfigError, DataError
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Source
from fedloom.data.forms import FORMS, Fields, Form, check_columns, detect, placed, refuse_unread, unread
from fedloom.data.records import Record
from fedloom.data.remarks import remark
from fedloom.data.turns import check_text

__all__ = ["FormName", "Malformed", "OfRecords", "column_of", "tag_of"]

_Guessed = Literal[
    "messages", "prompt_completion", "alpaca", "instruction_response", "conversations", "preference", "text"
]
FormName = Literal["auto", _Guessed, "transcript", "tree", "thread"]
Malformed = Literal["refuse", "drop"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OfRecords(Source):
    """A source of records: how they become examples."""

    path: str = ""
    """A file, a folder of files or a pattern."""
    form: FormName = "auto"
    """auto takes the one form whose columns the first record has."""
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    """The form's name of a column -> its name in the file, for instance {instruction = "question"}."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    """Tag -> column, which must hold text or whole numbers, for instance {client = "source", topic = "focus"}."""
    where: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What a record must have to be read, looked at in this order: column -> text, whole number, true or false. Dots
    lead into tables and lists: {turn = 1, "openai_moderation.1.flagged" = false}."""
    ignored: tuple[str, ...] = ()
    """Columns that are left out though they may change what a record means, such as label, weight, tools or images."""
    unique: str = ""
    """A column of whose equal values only the first record is kept; "" keeps all."""
    malformed: Malformed = "refuse"
    """drop leaves out records that are no example and logs their number; else they refuse the file."""

    def check(self) -> None:
        """Refuse renamed columns that the form does not read, and conditions that no record can meet."""
        check_columns(self.form, self.columns)
        for path, value in self.where.items():
            if not isinstance(value, str | int):  # true and false are whole numbers to Python
                raise ConfigError(f"where.{path}: found {value!r}, allowed are text, a whole number, true and false.")

    def origins(self) -> tuple[str, ...]:
        """Return the path."""
        return (self.path,)

    def brings_in(self) -> str:
        """Return the setting by which one record decides whether others come in; "" where each is kept for itself.

        Of two like records the second comes in when the first one leaves; and the first one of all tells the form of
        those behind it, by which they are examples or dropped.
        """
        if self.form == "auto" and self.malformed == "drop":
            return "data.form = 'auto' with data.malformed = 'drop', where the first record tells what the others are,"
        return f"data.unique = '{self.unique}'" if self.unique else ""

    def examples(self, records: Sequence[Record], constant: Mapping[str, str] | None = None) -> list[Example]:
        """Return the examples of records, in their order; `constant` tags are set on all of them."""
        first = self._seen(records[0])
        form = FORMS[detect(Fields(first, self.columns)) if self.form == "auto" else self.form]
        asked = [path.partition(".")[0] for path in self.where]
        names = unread(form, self.columns, [*self.tags.values(), *asked, self.unique])
        kept: list[Example] = []
        dropped: list[str] = []
        unanswered: list[str] = []
        for record in self._first_of_each(self._met(records)):
            try:
                refuse_unread(seen := self._seen(record), names)
                fields = Fields(seen, self.columns)
                kept.append(self._example(form, fields, constant or {}))
                unanswered += [record.where] if fields.unanswered else []
            except DataError as error:
                if self.malformed == "refuse":
                    raise
                dropped.append(str(error))
        if unanswered:
            told = "%d of %d conversations end with turns that nobody answered, which are left out, the first: %s"
            _log.warning(told, len(unanswered), len(kept), unanswered[0])
            remark(f"{len(unanswered):,} of {len(kept):,} conversations end with turns that nobody answered: left out")
        return _checked(kept, dropped, records[0].where)

    def _example(self, form: Form, fields: Fields, constant: Mapping[str, str]) -> Example:
        tags = {**constant, **{tag: tag_of(fields.record, column) for tag, column in self.tags.items()}}
        with placed(fields.record.where):
            return form.build(fields, tags)

    def _seen(self, record: Record) -> Record:
        """Return the record without the columns that are ignored."""
        if not self.ignored:
            return record
        return Record(record.where, {name: one for name, one in record.values.items() if name not in self.ignored})

    def _met(self, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records that have what `where` asks for."""
        if not self.where:
            return records
        met = [record for record in records if all(_is(record, *one) for one in self.where.items())]
        _log.info("%s: %d of %d records have %s", records[0].where, len(met), len(records), dict(self.where))
        if not met:
            raise DataError(f"{records[0].where}: none of {len(records)} records has {dict(self.where)}; mend `where`.")
        return met

    def _first_of_each(self, records: Sequence[Record]) -> Iterable[Record]:
        if not self.unique:
            return records
        first: dict[str, Record] = {}
        for record in records:
            value = check_text(column_of(record, self.unique), f"{record.where}, column '{self.unique}'")
            first.setdefault(value, record)
        _log.info(
            "%s: %d of %d records repeat a '%s'", records[0].where, len(records) - len(first), len(records), self.unique
        )
        return first.values()


def _checked(kept: list[Example], dropped: list[str], where: str) -> list[Example]:
    if dropped:
        _log.warning("%d of %d records dropped, the first: %s", len(dropped), len(dropped) + len(kept), dropped[0])
        remark(f"{len(dropped):,} of {len(dropped) + len(kept):,} records are malformed: dropped")
    if not kept:
        raise DataError(f"{where}: all {len(dropped)} records of the file are malformed, the first: {dropped[0]}")
    return kept


def column_of(record: Record, column: str) -> Any:
    """Return a record's value in a column that it must have."""
    if column not in record.values:
        present = ", ".join(record.values) or "none"
        raise DataError(f"{record.where}: no column '{column}'; present: {present}; name one of these.")
    return record.values[column]


def _is(record: Record, path: str, wanted: Any) -> bool:
    """Return whether a dotted path leads to that value; true is not 1."""
    first, *steps = path.split(".")
    value = column_of(record, first)
    for step in steps:
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError, ValueError):
            raise DataError(
                f"{record.where}: nothing lies at '{path}'; name with `where` what each record has."
            ) from None
    return type(value) is type(wanted) and value == wanted


def tag_of(record: Record, column: str) -> str:
    """Return the text or whole number in a column as a tag's value."""
    value = column_of(record, column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value == "":
        raise DataError(f"{record.where}, column '{column}': found empty text, a tag needs a value.")
    if not isinstance(value, str):
        raise DataError(f"{record.where}, column '{column}': found {value!r}, a tag is text or a whole number.")
    return check_text(value, f"{record.where}, column '{column}'")
