"""The field of people as a model of the frame: 48,275 shared numbers, and those of a studio's own cameras."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from fedloom.base.config import table_of
from fedloom.base.errors import MissingFileError, ModelError, one_line
from fedloom.base.files import atomic_folder, file_sha256
from fedloom.base.plugin import Count, plugin
from fedloom.base.tree import Tree
from fedloom.contracts.federated import Model, ModelFamily
from fedloom.contracts.lineage import Lineage, read_lineage
from fedloom.contracts.model import ForwardContext
from fedloom.models.starting import kept_of, start_by_name, trainable_of
from fedloom.people.field import Field

__all__ = ["FieldModel", "PersonField"]

_FILE, _CAMERAS = "field.safetensors", "cameras.safetensors"
_SHIPPED = Path(__file__).parents[3] / "embedded" / "field"


@dataclass(frozen=True, kw_only=True)
class FieldModel(Model):
    """A model from photographs to distance and colour."""

    @property
    def field(self) -> Field:
        """The module."""
        if not isinstance(self.module, Field):
            raise TypeError("the module of a FieldModel is a Field")
        return self.module


@plugin("person_field")
class PersonField(ModelFamily):
    """The field of people, in the spirit of USR: trained whole, none of its numbers belongs to a person or a view."""

    path: str = ""
    """Folder of a trained field, as runs write it; "shipped" takes the one of the package; left out: from the hull."""
    cameras: Count = 0
    """Places for the colours of a studio's cameras, 3 x 4 numbers each, called `cameras`: photographs are numbered as a
    capture has them, and take turns where there are fewer places. Keep them private: share = "^(?!cameras)"."""

    def _file(self) -> Path:
        folder = _SHIPPED if self.path == "shipped" else Path(self.path)
        if not (folder / _FILE).is_file():
            raise MissingFileError(
                f"model.path: found no {_FILE} in '{self.path}'; give a run's folder 'adapter', or \"shipped\"."
            )
        return folder / _FILE

    def identity(self) -> str:
        """Return the settings and a hash of the weights."""
        weights = {"weights": file_sha256(self._file())} if self.path else {}
        return json.dumps(weights | {"cameras": self.cameras}, sort_keys=True)

    def lineage(self) -> Lineage:
        """Return the lineage of the field that is gone on from."""
        return (read_lineage(self._file().parent) or ()) if self.path else ()

    def build(self, *, seed: int, device: torch.device, train: str | None = None) -> FieldModel:
        """Return the field, drawn by name from the seed or read; `train` is a pattern of the names to train."""
        module = Field(self.cameras)
        start_by_name(module, seed, self.name)
        module.start_at_hull()
        if self.path:
            _load(module, self._file())
        module.eval().requires_grad_(False).to(device)
        return FieldModel(
            module=module,
            trainable=trainable_of(module, train),
            context=ForwardContext(),
            base_id=f"{self.name} {self.identity()}",
            stackable=False,
        )

    def save(self, model: Model, params: Tree, folder: str) -> None:
        """Write what is shared as safetensors, settings as JSON, and a studio's own colours as a file of their own."""
        tensors = kept_of(model.module, params)
        cameras = tensors.pop("cameras", None)
        settings: dict[str, Any] = table_of(self) | {"path": ""}
        with atomic_folder(Path(folder)) as new:
            (new / _FILE).write_bytes(save(tensors))
            if cameras is not None:
                (new / _CAMERAS).write_bytes(save({"cameras": cameras}))
            (new / "field.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _read(file: Path) -> Tree:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: cannot be read ({one_line(error)}); copy it anew.") from error


def _load(module: Field, file: Path) -> None:
    tensors, own = _read(file), dict(module.named_parameters())
    cameras = file.with_name(_CAMERAS)
    wanted = own.keys() - {"cameras"}
    if "cameras" in own and cameras.is_file():
        tensors, wanted = tensors | _read(cameras), own.keys()
    odd = sorted(tensors.keys() ^ wanted)
    odd += [name for name in sorted(tensors.keys() & wanted) if tensors[name].shape != own[name].shape]
    if odd:
        raise ModelError(f"{file}: tensor '{odd[0]}' does not fit the field; give a field that fedloom wrote.")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
