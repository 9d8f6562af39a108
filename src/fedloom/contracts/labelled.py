"""Labelled numbers: pictures and rows of tables as kinds of examples, and the models that tell their labels."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.contracts.examples import Wordless
from fedloom.contracts.model import Model

__all__ = ["ClassifierModel", "Labelled", "Picture", "Row"]


class _Labelled(Wordless):
    """An example that has a label besides its content."""

    __slots__ = ()
    label: str

    @property
    def reference(self) -> str:
        """The label."""
        return self.label


@dataclass(frozen=True, slots=True, repr=False)
class Picture(_Labelled):
    """A picture with its label."""

    pixels: bytes
    """[C, H, W], a byte each."""
    shape: tuple[int, int, int]
    label: str
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def inputs(self) -> NDArray[np.float32]:
        """The pixels [C, H, W] from 0 to 1."""
        return np.frombuffer(self.pixels, np.uint8).reshape(self.shape).astype(np.float32) / np.float32(255)

    @property
    def key(self) -> str:
        """A hash of the pixels, whatever the label."""
        return hashlib.sha256(repr(self.shape).encode() + self.pixels).hexdigest()

    def __repr__(self) -> str:
        """Return all of it, the pixels by their hash."""
        return f"Picture({self.key}, {self.label!r}, {dict(self.tags)!r})"


@dataclass(frozen=True, slots=True)
class Row(_Labelled):
    """A row of a table with its label."""

    values: tuple[float, ...]
    label: str
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def inputs(self) -> NDArray[np.float32]:
        """The values [D]."""
        return np.array(self.values, np.float32)

    @property
    def key(self) -> str:
        """The values, whatever the label."""
        return repr(self.values)


Labelled = Picture | Row


@dataclass(frozen=True, kw_only=True)
class ClassifierModel(Model):
    """A model from numbers to a score for each class."""

    inputs: tuple[int, ...]
    """The shape of what it takes: [C, H, W] or [D]."""
    n_classes: int
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What it was built by, for its file."""
