"""Files of records: JSON, JSON Lines, CSV or Parquet by path, in any of the forms of `fedloom.data.forms`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.data.forms import check_columns
from fedloom.data.records import check_encoding, find_files, read_records
from fedloom.data.sources._recipe import FormName, OfRecords

__all__ = ["File", "OneFile"]


@dataclass(frozen=True, kw_only=True)
class OneFile:
    """A file with a layout of its own, such as one hospital's among several."""

    path: str
    """The file."""
    form: FormName = "auto"
    """Left out: the source's."""
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    """Beside the source's own, and before them."""
    encoding: str = ""
    """Left out: the source's."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    """Tags of all of its examples, for instance {client = "north"}; without any the tag `file` is its name."""

    def __post_init__(self) -> None:
        check_columns(self.form, self.columns)
        if self.encoding:
            check_encoding(self.encoding)


@plugin("file")
class File(OfRecords):
    """Examples from a file, a folder of files or a pattern; of several files each example carries the tag `file`."""

    validation_path: str = ""
    """File of each client's held-out records; "" holds some of the training ones out."""
    test_path: str = ""
    """File of the common test, which no client trains on; "" has none."""
    public_path: str = ""
    """File of examples that nobody owns and nobody is measured by, for generators; "" has none."""
    format: Literal["auto", "json", "jsonl", "csv", "parquet"] = "auto"
    """auto takes the extension: .json .jsonl .ndjson .csv .parquet."""
    encoding: str = "utf-8"
    """Of the files' texts, as Python calls it: utf-8, cp1252, utf-16 and so on."""
    files: tuple[OneFile, ...] = ()
    """In place of `path`: files of unlike layout."""

    def check(self) -> None:
        """Refuse wrong columns and encodings, and a path beside a list of files."""
        super().check()
        check_encoding(self.encoding)
        if self.path and self.files:
            raise ConfigError("path: found one beside `files`; allowed is one of the two.")
        names = [Path(one.path).name for one in self.files]
        if len(set(names)) < len(names) and not all(one.tags for one in self.files):
            raise ConfigError("files: two have one name; tell them apart by tags, such as tags = {client = 'north'}.")

    def origins(self) -> tuple[str, ...]:
        """Return the paths."""
        return tuple(one.path for one in self.files) or super().origins()

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the examples of the paths given; refusals name file and line, or file and record."""
        paths = {"validation": self.validation_path, "test": self.test_path, "public": self.public_path}
        others = {split: self._read(path) for split, path in paths.items() if path}
        own = (
            [example for one in self.files for example in self._read_one(one)] if self.files else self._read(self.path)
        )
        return {"train": own} | others

    def _read(self, path: str, constant: Mapping[str, str] | None = None) -> list[Example]:
        files = find_files(path)
        tagged = len(files) > 1 and constant is None
        return [
            example
            for name, file in files.items()
            for example in self.examples(
                read_records(file, self.format, self.encoding), {"file": name} if tagged else constant
            )
        ]

    def _read_one(self, one: OneFile) -> list[Example]:
        own = replace(
            self,
            files=(),
            form=self.form if one.form == "auto" else one.form,
            columns={**self.columns, **one.columns},
            encoding=one.encoding or self.encoding,
        )
        return own._read(one.path, one.tags or {"file": Path(one.path).name})
