"""A body of SMPL's files: `.npz` of plain arrays or the official `.pkl`, which the user has; fedloom brings none."""

from pathlib import Path
from typing import Any

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.plugin import plugin
from fedloom.people.array_files import read_arrays
from fedloom.people.body import BODY_KEYS, Body, BodyModel, body_of
from fedloom.people.unpickle import read_pickle

__all__ = ["Smpl"]


def _arrays(path: Path) -> dict[str, Any]:
    if path.suffix != ".npz":
        found = read_pickle(path)
        if not isinstance(found, dict):
            raise DataError(f"{path}: found a {type(found).__name__}, allowed is a dictionary of arrays; is it a body?")
        return found
    return read_arrays(path, BODY_KEYS)


@plugin("smpl")
class Smpl(BodyModel):
    """A body with SMPL's key names in a file; SMPL's own files are licensed and stay with the user."""

    path: str = ""
    """An `.npz`, else a pickle."""

    def check(self) -> None:
        """Refuse a body without a file."""
        if not self.path:
            raise ConfigError("body 'smpl': found no path, allowed is an .npz or .pkl with SMPL's keys; name the file.")

    def load(self) -> Body:
        """Return the body of the file; raises DataError for one that holds none, or anything that could run."""
        path = Path(self.path)
        return body_of(_arrays(path), str(path))
