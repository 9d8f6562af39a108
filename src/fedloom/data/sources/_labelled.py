"""What the sources of labelled examples share: the clients' files and, where there is one, the common test's."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedloom.base.errors import ConfigError
from fedloom.contracts.federated import Source

__all__ = ["OfFiles"]


@dataclass(frozen=True, kw_only=True)
class OfFiles(Source):
    """A source that reads each example for itself, from one place for the clients and one for the test."""

    path: str = ""
    """Where the clients' examples lie."""
    test_path: str = ""
    """Where the common test lies, laid out alike; "" has none."""
    public_path: str = ""
    """Where examples lie that nobody owns, on which generators may be fitted, laid out alike; "" has none."""

    def origins(self) -> tuple[str, ...]:
        """Return the path."""
        return (self.path,)

    def brings_in(self) -> str:
        """Return "": every example is read for itself."""
        return ""

    def places(self) -> Mapping[str, str]:
        """Return the path of each split; raises ConfigError where the clients have none."""
        if not self.path:
            raise ConfigError(f"path: found none; give that of the clients' examples to source '{self.name}'.")
        others = {"test": self.test_path, "public": self.public_path}
        return {"train": self.path} | {split: path for split, path in others.items() if path}
