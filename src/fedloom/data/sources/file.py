"""Files of records: JSON, JSON Lines, CSV or Parquet by path, in any of the forms of `fedloom.data.forms`."""

from collections.abc import Mapping, Sequence
from typing import Literal

from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.data.records import find_files, read_records
from fedloom.data.sources._recipe import OfRecords

__all__ = ["File"]


@plugin("file")
class File(OfRecords):
    """Examples from a file, a folder of files or a pattern; of several files each example carries the tag `file`."""

    validation_path: str = ""
    test_path: str = ""
    format: Literal["auto", "json", "jsonl", "csv", "parquet"] = "auto"
    """auto takes the extension: .json .jsonl .ndjson .csv .parquet."""

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the examples of the paths given; refusals name file and line, or file and record."""
        paths = {"train": self.path, "validation": self.validation_path, "test": self.test_path}
        return {split: self._read(path) for split, path in paths.items() if path or split == "train"}

    def _read(self, path: str) -> list[Example]:
        files = find_files(path)
        tagged = len(files) > 1
        return [
            example
            for name, file in files.items()
            for example in self.examples(read_records(file, self.format), {"file": name} if tagged else {})
        ]
