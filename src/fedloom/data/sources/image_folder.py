"""Pictures in folders by class, as data sets of pictures are passed on: ROOT/class/file, or ROOT/domain/class/file.

Nothing is repaired: a file that is no picture, that moves, that has other colours or another size than the others is
refused with its path.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fedloom.base.errors import ConfigError, DataError, MissingFileError
from fedloom.base.extras import library
from fedloom.base.plugin import AtLeast, plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.labelled import Picture
from fedloom.data.sources._labelled import OfFiles

__all__ = ["ImageFolder"]

_MODES = {"L", "RGB", "P", "1", "LA", "RGBA"}
"""Colours that are read; of transparent ones what lies on black."""


@plugin("image_folder")
class ImageFolder(OfFiles):
    """Pictures whose folder is their class; the tags `label` and, with `domains`, `domain` tell where they lay."""

    needs = ("PIL",)

    domains: bool = False
    """Whether a folder of domains lies above the classes: ROOT/domain/class/file."""
    size: tuple[AtLeast, ...] = ()
    """Height and width to which all are scaled; left out: they must have one size."""
    colours: Literal[1, 3] = 3
    """Channels: 1 is grey."""

    def check(self) -> None:
        """Refuse a size that is none."""
        if self.size and len(self.size) != 2:
            raise ConfigError(f"size: found {list(self.size)}, allowed is [height, width].")

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the pictures of the folders; what is refused is named by its path."""
        found = {split: [*self._pictures(Path(path))] for split, path in self.places().items()}
        first = found["train"][0]
        for pictures in found.values():
            for one in pictures:
                if one.picture.shape != first.picture.shape:
                    sizes = f"{one.path} is {_told(one.picture)}, {first.path} is {_told(first.picture)}"
                    raise DataError(f"{sizes}; set data.size, to which all are scaled.")
        return {split: [one.picture for one in pictures] for split, pictures in found.items()}

    def _pictures(self, root: Path) -> Iterator["_Found"]:
        if not root.is_dir():
            raise MissingFileError(f"{root}: no such folder; give one with a folder for each class.")
        homes = [home for home in sorted(root.iterdir()) if home.is_dir()]
        classes = [(home.name, one) for home in homes for one in sorted(home.iterdir()) if one.is_dir()]
        classes = classes if self.domains else [("", home) for home in homes]
        if not classes:
            raise DataError(f"{root}: holds no folder of a class; pictures lie in ROOT/class/, or ROOT/domain/class/.")
        for domain, folder in classes:
            files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
            if not files:
                raise DataError(f"{folder}: a class without a file; remove the folder or add pictures.")
            tags = {"label": folder.name, **({"domain": domain} if domain else {})}
            for file in files:
                yield _Found(file, self._picture(file, tags))

    def _picture(self, file: Path, tags: Mapping[str, str]) -> Picture:
        pillow: Any = library("PIL.Image", "source 'image_folder'")
        try:
            with pillow.open(file) as opened:
                if _moves(opened):
                    raise DataError(f"{file}: moves; give single pictures.")
                if opened.mode not in _MODES:
                    raise DataError(
                        f"{file}: has colours {opened.mode}, allowed are grey and RGB of 8 bits; convert it."
                    )
                image = opened.convert("L" if self.colours == 1 else "RGB")
        except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
            raise DataError(f"{file}: cannot be read as a picture: {' '.join(str(error).split())}.") from error
        if min(image.size) < 2:
            raise DataError(f"{file}: is {image.size[0]} x {image.size[1]} pixels, allowed are 2 and more a side.")
        if self.size:
            image = image.resize((self.size[1], self.size[0]), pillow.Resampling.BILINEAR)
        pixels_HWC = np.asarray(image, np.uint8).reshape(image.size[1], image.size[0], self.colours)
        pixels_CHW = np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))
        return Picture(pixels_CHW.tobytes(), (self.colours, *pixels_HWC.shape[:2]), str(tags["label"]), dict(tags))


def _moves(opened: Any) -> bool:
    """Return whether a file holds a second picture; it is at its first one afterwards."""
    try:
        opened.seek(1)
    except EOFError:
        return False
    opened.seek(0)
    return True


@dataclass(frozen=True)
class _Found:
    path: Path
    picture: Picture


def _told(picture: Picture) -> str:
    return f"{picture.shape[2]} x {picture.shape[1]} pixels"
