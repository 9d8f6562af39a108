"""Tables of numbers with a label: CSV, Parquet, JSON or JSON Lines, a row an example."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path

from fedloom.base.errors import DataError
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.labelled import Row
from fedloom.data.records import Record, check_encoding, find_files, read_records
from fedloom.data.sources._labelled import OfFiles
from fedloom.data.sources._recipe import column_of, tag_of

__all__ = ["Table"]


@plugin("table")
class Table(OfFiles):
    """Rows of numbers from a file, a folder of files or a pattern; of several files each carries the tag `file`."""

    label: str = "label"
    """Column of the class."""
    columns: tuple[str, ...] = ()
    """Columns of the numbers, in their order; left out: all of the first row but the label and those of tags."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    """Tag -> the column whose value it takes: {client = "bank"}."""
    encoding: str = "utf-8"
    """Of the files' texts."""

    def check(self) -> None:
        """Refuse an encoding that is none."""
        check_encoding(self.encoding)

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the rows of the paths; refusals name file and line."""
        return {split: self._read(path, split) for split, path in self.places().items()}

    def _read(self, path: str, split: str) -> list[Row]:
        files = find_files(path)
        tags = self.tags if split == "train" else {}
        rows: list[Row] = []
        for name, file in files.items():
            records = read_records(Path(file), encoding=self.encoding)
            columns = self.columns or self._numbers(records[0])
            own = {"file": name} if len(files) > 1 else {}
            rows += [self._row(record, columns, tags, own) for record in records]
        return rows

    def _numbers(self, first: Record) -> tuple[str, ...]:
        left_out = {self.label, *self.tags.values()}
        return tuple(name for name in first.values if name not in left_out)

    def _row(self, record: Record, columns: Sequence[str], tags: Mapping[str, str], own: Mapping[str, str]) -> Row:
        label = tag_of(record, self.label)
        told = {tag: tag_of(record, column) for tag, column in tags.items()}
        return Row(tuple(_number(record, name) for name in columns), label, {**own, **told, "label": label})


def _number(record: Record, column: str) -> float:
    value = column_of(record, column)
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{record.where}, column '{column}': found {value!r}, allowed is a finite number.")
    return number
