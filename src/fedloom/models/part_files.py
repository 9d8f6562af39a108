"""Folders that hold a part of a model's weights, as `fedloom split partition` writes them, with hashes of all."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fedloom.base.errors import MissingFileError, ModelError
from fedloom.base.tree import Tree, digest

__all__ = ["MANIFEST", "VERSION", "WEIGHTS", "Manifest", "PartName", "part_folders", "read_part", "tensor_sha256"]

PartName = Literal["input", "middle", "output"]
VERSION = 1
"""Of folders and messages: sides of different versions have no run together."""

WEIGHTS, MANIFEST = "part.safetensors", "manifest.json"
"""Files of a part's folder."""


@dataclass(frozen=True)
class Manifest:
    """What a part was cut from, and what it holds."""

    version: int
    part: PartName
    base_id: str
    """Name and SHA-256 of the whole model's weights."""
    cut: str
    n_blocks: int
    dtype: str
    tensors: Mapping[str, str]
    """The SHA-256 of each tensor with its shape and type, by name."""

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Return the manifest of a folder, read strictly."""
        path = folder / MANIFEST
        if not path.is_file():
            raise MissingFileError(f"{path}: missing; a part is a folder as `fedloom split partition` writes it.")
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if type(told["tensors"]) is not dict:
                raise TypeError("its tensors are no table")
            found = cls(**told)
            _check(found)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ModelError(f"{path}: is not what fedloom wrote ({error}); partition the model anew.") from error
        return found

    def refuse_other(self, other: "Manifest") -> None:
        """Refuse a part of another model, cut, type or version: ModelError, which names both."""
        for key in ("version", "base_id", "cut", "n_blocks", "dtype"):
            mine, theirs = vars(self)[key], vars(other)[key]
            if mine != theirs:
                raise ModelError(
                    f"split: the {other.part} part has {key} = {theirs!r}, the {self.part} part has {mine!r}; both "
                    "sides need parts of one partition."
                )


def _check(found: Manifest) -> None:
    texts: tuple[Any, ...] = (found.base_id, found.cut, found.dtype, *found.tensors, *found.tensors.values())
    numbers: tuple[Any, ...] = (found.n_blocks, found.version)
    if any(type(one) is not str for one in texts) or any(type(one) is not int for one in numbers):
        raise TypeError("an entry has another type")
    if found.part not in get_args(PartName):
        raise ValueError(f"no part is called {found.part!r}")
    if found.version != VERSION:
        raise ValueError(f"version {found.version}, this is {VERSION}")
    if not all(re.fullmatch(r"[0-9a-f]{64}", one) for one in found.tensors.values()):
        raise ValueError("a hash is none")


def part_folders(folder: Path) -> list[Path]:
    """Return the parts that lie in a folder, in their order in the model; none for a folder of another kind."""
    return [folder / name for name in get_args(PartName) if (folder / name / MANIFEST).is_file()]


def read_part(folder: Path) -> tuple[Manifest, Tree]:
    """Return a part's manifest and tensors; ModelError for a tensor that is missing, too many or differs."""
    manifest = Manifest.read(folder)
    file = folder / WEIGHTS
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: no complete safetensors file ({error}); partition the model anew.") from error
    odd = sorted(manifest.tensors.keys() ^ tensors.keys())
    told = manifest.tensors
    odd += [name for name, one in tensors.items() if name in told and tensor_sha256(name, one) != told[name]]
    if odd:
        raise ModelError(f"{file}: '{odd[0]}' differs from its manifest; partition the model anew.")
    return manifest, tensors


def tensor_sha256(name: str, tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor with its name, shape and type."""
    return digest({name: tensor})
