"""Public training sets by a short name: the hub's copy, or a local file in the set's own columns (`presets.toml`)."""

import logging
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedloom.base.errors import DataError, MissingFileError, UnknownNameError, suggest
from fedloom.base.plugin import Count, plugin
from fedloom.base.rng import python_random
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
    """Name of the set."""
    path: str = ""
    """A local file or folder in the set's columns, read instead of the hub; "" reads the hub."""
    test_path: str = ""
    """A local file of its test examples; "" takes those of the set."""
    test_preset: str = ""
    """Another set of the table that is asked in the end; "" asks this one's own test examples."""
    draw: Count = 0
    """Training examples that are drawn of all, by `seed`; 0 takes all."""
    seed: Count = 0
    """Of the draw."""
    revision: str = ""
    """Commit or tag on the hub; "" takes the newest."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    """Tag -> column, as of the source `file`."""
    malformed: Malformed = "refuse"
    """drop leaves out records that are no example and logs their number; else they refuse the set."""

    def check(self) -> None:
        """Refuse a name that is not in the table."""
        for key, name in (("preset", self.preset), ("test_preset", self.test_preset or self.preset)):
            if name not in PRESETS:
                raise UnknownNameError(f"{key}: no data set called '{name}'. {suggest(name, PRESETS)}")

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the training examples and, where the set has them or a path is given, the test examples."""
        row, asked = PRESETS[self.preset], PRESETS[self.test_preset or self.preset]
        for name, one in {self.preset: row, self.test_preset or self.preset: asked}.items():
            _log.info("data set %s (%s), licence: %s. %s", name, one.hub, one.licence, one.note)
        splits = {"train": self._drawn(self._read(row, self.path, row.split))}
        if self.test_path or self.test_preset or (row.test_split and not self.path):
            last = asked.test_split or (asked.split if self.test_preset else "test")
            splits["test"] = self._read(asked, self.test_path, last)
        return splits

    def origins(self) -> tuple[str, ...]:
        """Return the sets' names here and on the hub, and the path of a copy."""
        names = filter(None, (self.preset, self.test_preset))
        return (*(told for name in names for told in (name, PRESETS[name].hub)), self.path)

    def brings_in(self) -> str:
        """Return the column by which the set keeps the first of like records, where it does."""
        column = PRESETS[self.preset].unique
        if self.draw:
            return f"data.draw = {self.draw}, which takes one record where another is not,"
        return f"data.preset = '{self.preset}', which keeps the first record of each '{column}'," if column else ""

    def _drawn(self, examples: list[Example]) -> list[Example]:
        if not self.draw:
            return examples
        if self.draw > len(examples):
            raise DataError(
                f"draw: found {self.draw} of {self.preset}, allowed are up to its {len(examples)} examples."
            )
        return python_random("preset", self.preset, self.seed).sample(examples, self.draw)

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
