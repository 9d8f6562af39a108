"""Public training sets by a short name: the hub's copy, or a local file in the set's own columns (`presets.toml`)."""

import logging
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedloom.base.errors import DataError, MissingFileError, UnknownNameError, suggest
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Source
from fedloom.data.hub_records import hub_records
from fedloom.data.records import Record, read_records
from fedloom.data.sources._recipe import FormName, Malformed
from fedloom.data.sources.file import File

__all__ = ["PRESETS", "Preset", "PresetSource"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preset:
    """Where a data set lies and how its records read."""

    hub: str
    form: FormName
    licence: str
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    subset: str = ""
    split: str = "train"
    test_split: str = ""
    where: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    unique: str = ""
    note: str = ""


_TABLES = tomllib.loads(Path(__file__).with_name("presets.toml").read_text("utf-8"))
PRESETS: Mapping[str, Preset] = {name: Preset(**table) for name, table in _TABLES.items()}


@plugin("preset")
class PresetSource(Source):
    """A table of `presets.toml`; loading logs its licence."""

    preset: str = "gsm8k"
    path: str = ""
    """A local file or folder in the set's columns, read instead of the hub; "" reads the hub."""
    test_path: str = ""
    revision: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    malformed: Malformed = "refuse"

    def check(self) -> None:
        """Refuse a name that is not in the table."""
        if self.preset not in PRESETS:
            raise UnknownNameError(f"preset: no data set called '{self.preset}'. {suggest(self.preset, PRESETS)}")

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the training examples and, where the set has them or a path is given, the test examples."""
        row = PRESETS[self.preset]
        _log.info("data set %s (%s), licence: %s. %s", self.preset, row.hub, row.licence, row.note)
        splits = {"train": self._read(row, self.path, row.split)}
        if self.test_path or (row.test_split and not self.path):
            splits["test"] = self._read(row, self.test_path, row.test_split or "test")
        return splits

    def origins(self) -> tuple[str, ...]:
        """Return the set's name here and on the hub, and the path of a copy."""
        return (self.preset, PRESETS[self.preset].hub, self.path)

    def brings_in(self) -> str:
        """Return the column by which the set keeps the first of like records, where it does."""
        column = PRESETS[self.preset].unique
        return f"data.preset = '{self.preset}', which keeps the first record of each '{column}'," if column else ""

    def _read(self, row: Preset, path: str, split: str) -> list[Example]:
        records = self._records(row, path, split)
        if not records:
            raise DataError(f"{row.hub}[{split}]: holds no record; a split needs at least one.")
        own = File(
            form=row.form,
            columns=row.columns,
            tags=self.tags,
            where=row.where,
            unique=row.unique,
            malformed=self.malformed,
        )
        return own.examples(records)

    def _records(self, row: Preset, path: str, split: str) -> list[Record]:
        if Path(path).is_file():
            return read_records(Path(path))
        if path and not Path(path).is_dir():
            raise MissingFileError(f"{path}: no such file or folder; give one that holds the set '{row.hub}'.")
        return hub_records(path or row.hub, subset=row.subset, split=split, revision=self.revision)
