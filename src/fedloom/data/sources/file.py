"""Files of records: JSON, JSON Lines, CSV or Parquet by path, in any of the forms of `_forms`."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Literal

from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Source
from fedloom.data.forms import check_columns
from fedloom.data.records import find_files, read_records
from fedloom.data.sources._recipe import FormName, Malformed, Recipe, brings_in

__all__ = ["File"]


@plugin("file")
class File(Source):
    """Examples from a file, a folder of files or a pattern; of several files each example carries the tag `file`."""

    path: str = ""
    validation_path: str = ""
    test_path: str = ""
    format: Literal["auto", "json", "jsonl", "csv", "parquet"] = "auto"
    """auto takes the extension: .json .jsonl .ndjson .csv .parquet."""
    form: FormName = "auto"
    """auto takes the one form whose columns the first record has."""
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    """The form's name of a column -> its name in the file, for instance {instruction = "question"}."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    """Tag -> column, for instance {client = "source", topic = "focus"}."""
    unique: str = ""
    """A column of whose equal values only the first record is kept."""
    malformed: Malformed = "refuse"
    """drop leaves out records that are no example and logs their number."""

    def check(self) -> None:
        """Refuse renamed columns that the form does not read."""
        check_columns(self.form, self.columns)

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the examples of the paths given; refusals name file and line, or file and record."""
        paths = {"train": self.path, "validation": self.validation_path, "test": self.test_path}
        return {split: self._read(path) for split, path in paths.items() if path or split == "train"}

    def brings_in(self) -> str:
        """Return `unique` where it is set, and a form that is guessed where records are dropped."""
        return brings_in(self.unique, self.form, self.malformed)

    def _read(self, path: str) -> list[Example]:
        recipe = Recipe(self.form, self.columns, self.tags, self.unique, self.malformed)
        files = find_files(path)
        tagged = len(files) > 1
        return [
            example
            for name, file in files.items()
            for example in recipe.examples(read_records(file, self.format), {"file": name} if tagged else {})
        ]
