"""Records that a Python program hands over: they stay in its memory, and the run directory has their hash alone."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.data.records import Record
from fedloom.data.sources._recipe import OfRecords

__all__ = ["Memory", "hold"]

_ROWS = Iterable[Mapping[str, object]]


@dataclass(frozen=True)
class _Part:
    """Records of one client, or of whomever where none is named."""

    client: str | None
    records: tuple[Record, ...]


_HELD: dict[str, Mapping[str, Sequence[_Part]]] = {}
"""What was handed over, by hash and split."""


def hold(splits: Mapping[str, Mapping[str, _ROWS] | _ROWS]) -> str:
    """Keep the records of each split, a list of tables or one by client, and return their hash.

    Raises DataError where something is no table or a client has no records.
    """
    parts = {split: _parts(split, rows) for split, rows in splits.items()}
    hasher = hashlib.sha256()
    for split, part in parts.items():
        for one in part:
            hasher.update(json.dumps([split, one.client]).encode())
            for record in one.records:
                hasher.update(_written(record))
    digest = hasher.hexdigest()
    _HELD[digest] = parts
    return digest


def _parts(split: str, rows: Mapping[str, _ROWS] | _ROWS) -> list[_Part]:
    if isinstance(rows, Mapping):
        return [_Part(str(client), _records(f"{split}[{client!r}]", own)) for client, own in rows.items()]
    return [_Part(None, _records(split, rows))]


def _records(where: str, rows: object) -> tuple[Record, ...]:
    if not isinstance(rows, Iterable) or isinstance(rows, str | bytes):
        raise DataError(f"{where}: found {type(rows).__name__}, allowed is a list of tables, or one for each client.")
    found = tuple(_record(f"{where}, record {number}", one) for number, one in enumerate(rows, 1))
    if not found:
        raise DataError(f"{where}: holds no record; give at least one.")
    return found


def _record(where: str, values: object) -> Record:
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise DataError(
            f"{where}: found {type(values).__name__}, allowed is a table with named columns (of pandas: "
            "frame.to_dict('records'))."
        )
    return Record(where, dict(values))


def _written(record: Record) -> bytes:
    """Return a record as it enters the hash; a value that is none of JSON is refused by its column."""
    for column, value in record.values.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            kind = type(value).__name__
            raise DataError(
                f"{record.where}, column '{column}': found {kind}, allowed are texts, numbers, lists and tables of "
                "these; leave the column out."
            ) from error
    return json.dumps(dict(record.values)).encode()


@plugin("memory")
class Memory(OfRecords):
    """Records handed over by `fedloom.Run`, those of a client in its own list or all in one with a tag `client`."""

    sha256: str = ""
    """Of the records; set by `fedloom.Run`."""

    def check(self) -> None:
        """Refuse a path: there is none."""
        super().check()
        if self.path:
            raise ConfigError("path: found one, records in memory have none; name the source 'file'.")

    def origins(self) -> tuple[str, ...]:
        """Return nothing: a name is not known."""
        return ()

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the examples; refused where they are not in this process."""
        if not self.sha256:
            raise ConfigError("data.name: 'memory' is what fedloom.Run(data = ...) sets; a run file names 'file'.")
        if self.sha256 not in _HELD:
            raise ConfigError(
                "data: the records were handed over from Python and are not here; go on with "
                "fedloom.Run(..., data = ...).resume(DIR), the same records given."
            )
        return {
            split: [one for part in parts for one in self.examples(part.records, _owner(part))]
            for split, parts in _HELD[self.sha256].items()
        }


def _owner(part: _Part) -> Mapping[str, str]:
    return {} if part.client is None else {"client": part.client}
