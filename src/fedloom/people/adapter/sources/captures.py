"""Captures on disk: a folder of each person, clients by the studio that photographed them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import AtLeast, plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Source
from fedloom.people.adapter.examples import KnownPerson, views_of
from fedloom.people.capture_files import capture_folders, read_capture, read_captures
from fedloom.people.scene import scene_of
from fedloom.people.truth_files import read_visible

__all__ = ["Captures"]


@plugin("captures")
class Captures(Source):
    """People from a folder of captures (docs/people.md); those of the test have their surfaces beside them."""

    path: str = ""
    """Folder of captures to train on."""
    test_path: str = ""
    """Folder of captures with a folder `truth` in each, of people whom nothing was trained on."""
    bundles: AtLeast = 16
    """Examples of each photograph, each some pixels of it."""

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the bundles of all photographs, and the people of the test."""
        if not self.path:
            raise ConfigError(
                "data.path: found none, allowed is a folder of captures; make one: fedloom people make-data."
            )
        train = [view for capture in read_captures(Path(self.path)) for view in views_of(capture, self.bundles)]
        if not self.test_path:
            return {"train": train}
        return {"train": train, "test": [_known(folder) for folder in capture_folders(Path(self.test_path))]}

    def origins(self) -> tuple[str, ...]:
        """Return the folder."""
        return (self.path,)

    def brings_in(self) -> str:
        """Return "": a capture that leaves lets none in."""
        return ""


def _known(folder: Path) -> KnownPerson:
    capture = read_capture(folder)
    return KnownPerson(scene_of(capture), read_visible(folder / "truth"), {"person": capture.name})
