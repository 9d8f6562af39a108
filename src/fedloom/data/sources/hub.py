"""Data sets by their name on the hub, or from a local folder, through the library `datasets` (extra `datasets`)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.data.hub_records import hub_records
from fedloom.data.sources._recipe import OfRecords

__all__ = ["Hub"]


@plugin("hub")
class Hub(OfRecords):
    """Examples of a hub data set; `path` is its name, such as openai/gsm8k, or a local folder."""

    needs: ClassVar[tuple[str, ...]] = ("datasets",)

    subset: str = ""
    """What the hub calls the configuration."""
    split: str = "train"
    """The split that is trained on."""
    validation_split: str = ""
    """The split of held-out records; "" has none."""
    test_split: str = ""
    """The split of the common test; "" has none."""
    revision: str = ""
    """Commit or tag of the data set; "" takes the newest, which no later run can repeat for sure."""

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the examples of the splits named."""
        if not self.path:
            raise ConfigError("path: found none; give the hub name of a data set or a local folder.")
        splits = {"train": self.split, "validation": self.validation_split, "test": self.test_split}
        return {name: self._read(split) for name, split in splits.items() if split or name == "train"}

    def brings_in(self) -> str:
        """Return `unique`, or a split that is a slice of another, where there is one."""
        return super().brings_in() or (f"data.split = '{self.split}'" if "[" in self.split else "")

    def _read(self, split: str) -> list[Example]:
        records = hub_records(self.path, subset=self.subset, split=split, revision=self.revision)
        if not records:
            raise DataError(f"{self.path}[{split}]: holds no record; a split needs at least one.")
        return self.examples(records)
