"""Labelled arrays of NumPy: an npz file with pictures or rows, and their labels; pickled objects are never read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from fedloom.base.errors import DataError, MissingFileError
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.labelled import Labelled, Picture, Row
from fedloom.data.sources._labelled import OfFiles

__all__ = ["Arrays"]


@plugin("arrays")
class Arrays(OfFiles):
    """Arrays x and y of an npz file: bytes [N, H, W] or [N, C, H, W] are pictures, numbers [N, D] rows."""

    inputs: str = "x"
    """Name of the examples' array."""
    labels: str = "y"
    """Name of the array [N] of labels: whole numbers or texts."""
    clients: str = ""
    """Name of an array [N] that tells who owns each; "" where a partition deals them."""

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the examples of the files."""
        return {split: self._read(Path(path), split) for split, path in self.places().items()}

    def _read(self, path: Path, split: str) -> list[Labelled]:
        found = _arrays(path)
        names = [self.inputs, self.labels, *([self.clients] if self.clients and split == "train" else [])]
        for name in names:
            if name not in found:
                raise DataError(f"{path}: no array '{name}'; present: {', '.join(found) or 'none'}.")
        inputs, labels = found[self.inputs], found[self.labels]
        if labels.ndim != 1 or labels.dtype.kind not in "iuU" or len(labels) != len(inputs) or not len(labels):
            raise DataError(
                f"{path}: '{self.labels}' is {labels.dtype}{list(labels.shape)}, allowed are as many whole numbers or "
                f"texts as '{self.inputs}' has examples, {len(inputs)}."
            )
        owners = found[names[2]] if len(names) > 2 else None
        tags = [{"label": str(label)} for label in labels.tolist()]
        if owners is not None:
            tags = [{**one, "client": str(owner)} for one, owner in zip(tags, owners.tolist(), strict=True)]
        return [self._one(path, inputs[at], one) for at, one in enumerate(tags)]

    def _one(self, path: Path, inputs: Any, tags: Mapping[str, str]) -> Labelled:
        if inputs.dtype == np.uint8 and inputs.ndim in (2, 3):
            pixels_CHW = np.ascontiguousarray(inputs if inputs.ndim == 3 else inputs[None])
            colours, height, width = pixels_CHW.shape
            return Picture(pixels_CHW.tobytes(), (colours, height, width), tags["label"], tags)
        if inputs.dtype.kind in "fiu" and inputs.ndim == 1:
            if not np.isfinite(inputs).all():
                raise DataError(f"{path}: '{self.inputs}' holds NaN or infinity; allowed are finite numbers.")
            return Row(tuple(float(value) for value in inputs), tags["label"], tags)
        raise DataError(
            f"{path}: '{self.inputs}' is {inputs.dtype} of {inputs.ndim + 1} axes, allowed are bytes [N, H, W] or "
            "[N, C, H, W] and numbers [N, D]."
        )


def _arrays(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; give the path of an npz file.")
    try:
        with np.load(path, allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}
    except (OSError, ValueError, BadZipFile, EOFError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path}: no npz file of plain arrays ({' '.join(str(error).split())}); write it anew."
        ) from error
