"""Pictures that were generated elsewhere: a folder for each class, and a manifest that says where each comes from.

    ROOT/manifest.jsonl     a line for each file: file, class, and what else is known (prompt, model, seed, sha256)
    ROOT/CLASS/FILE         the pictures

The manifest may be missing; where it is there every file has its line, of the class that the folder says, and files are
what their `sha256` says.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from fedloom.base.errors import DataError, MissingFileError
from fedloom.base.files import file_sha256
from fedloom.base.plugin import AtLeast, lookup, plugin
from fedloom.contracts.data import Source
from fedloom.contracts.examples import Example
from fedloom.contracts.generation import Generated, Generator, Place, Request
from fedloom.contracts.labelled import Picture
from fedloom.synthesis.generators.public import drawn

__all__ = ["Folder"]

_MANIFEST = "manifest.jsonl"


@plugin("folder")
class Folder(Generator):
    """Draws generated pictures from a folder, none twice for one client."""

    needs = ("PIL",)
    makes = (Picture,)

    path: str = ""
    """Folder with a folder for each class."""
    size: tuple[AtLeast, ...] = ()
    """Height and width to which all are scaled, as the clients' are."""
    colours: AtLeast = 3
    """Channels: 1 is grey."""

    def identity(self) -> str:
        """Return a hash of all files."""
        root = Path(self.path)
        files = sorted(file for file in root.rglob("*") if file.is_file()) if self.path else []
        return json.dumps([[str(file.relative_to(root)), file_sha256(file)] for file in files])

    def __call__(self, requests: Sequence[Request], place: Place) -> Generated:
        """Return pictures of the classes; refused are a class that it has not, and more than it has."""
        piles = self._piles()
        for label in dict.fromkeys(request.label for request in requests):
            asked, has = sum(one.label == label for one in requests), len(piles.get(label, ()))
            if asked > has:
                raise DataError(
                    f"generator 'folder': {self.path}: {asked} pictures of class '{label}' are asked for, it has "
                    f"{has}; lower prepare.total or generate more."
                )
        return Generated(drawn(requests, piles))

    def _piles(self) -> dict[str, list[Example]]:
        if not self.path or not Path(self.path).is_dir():
            raise MissingFileError(f"generator 'folder': {self.path or 'path'}: no such folder; give that of pictures.")
        _check_manifest(Path(self.path))
        settings = {"path": self.path, "size": self.size, "colours": self.colours}
        piles: dict[str, list[Example]] = {}
        for one in lookup(Source, "image_folder")(**settings).load()["train"]:
            piles.setdefault(one.tags["label"], []).append(one)
        return piles


def _check_manifest(root: Path) -> None:
    path = root / _MANIFEST
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        where = f"{path}: line {number}"
        try:
            record = json.loads(line)
            file, label, digest = root / record["file"], record["class"], record.get("sha256", "")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{where} is no record with file and class; write it anew.") from error
        if not file.is_file() or not file.resolve().is_relative_to(root.resolve()):
            raise DataError(f"{where}: '{record['file']}' is no file of the folder; remove the line.")
        if file.parent.name != label:
            raise DataError(
                f"{where}: '{record['file']}' lies in '{file.parent.name}', its class is '{label}'; move it."
            )
        if digest and file_sha256(file) != digest:
            raise DataError(f"{where}: '{record['file']}' is not the file of this sha256; restore it.")
