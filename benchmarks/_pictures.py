"""Random pictures of ten classes, owned by clients, and the run files that train classifiers on them.

A picture is its class's pattern, in blocks of 2 x 2 pixels, under noise. The noise makes classes overlap, so that a
trained model keeps a loss by which sides can be compared.

Shapes: N pictures [C, H, W], K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks._common import Settings
from fedloom.base import rng

__all__ = ["PictureShape", "drawn_pictures", "picture_table", "picture_tensors"]

CLASSES = 10
_GREY, _NOISE = 128, 60  # of 255 levels
_APART = 4.0
"""Norm of a class's pattern over the noise of a pixel: a few in a hundred pictures look more like another class."""
_BLOCK = 2


@dataclass(frozen=True, kw_only=True)
class PictureShape:
    """A classifier, the pictures it takes, and what a round of federated training of it is."""

    name: str
    model: Mapping[str, Any]
    """The family and its settings, but for the inputs and classes."""
    inputs: tuple[int, int, int] = (1, 8, 8)
    """[C, H, W]"""
    clients: int = 10
    steps: int = 100
    batch: int = 32
    lr: float = 0.1

    @property
    def examples(self) -> int:
        """Pictures of a client: as many as a round trains on, so that every side sees each of them once."""
        return self.steps * self.batch


def drawn_pictures(shape: PictureShape, count: int, *names: str | int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return so many pictures [N, C, H, W] and their labels [N], seeded by the names."""
    draw = rng.numpy_random("pictures", shape.name, *names)
    label_N = draw.integers(CLASSES, size=count)
    signal_NCHW = _patterns(shape)[label_N] + draw.normal(size=(count, *shape.inputs))
    return (_GREY + _NOISE * signal_NCHW).round().clip(0, 255).astype(np.uint8), label_N


def picture_tensors(shape: PictureShape, count: int, *names: str | int) -> tuple[Tensor, Tensor]:
    """Return the same pictures [N, C, H, W] as numbers from 0 to 1, and their labels [N]."""
    pictures, label_N = drawn_pictures(shape, count, *names)
    return torch.from_numpy(pictures).float() / 255, torch.from_numpy(label_N)


def _patterns(shape: PictureShape) -> NDArray[np.float64]:
    """Return a pattern [K, C, H, W] for each class."""
    colours, height, width = shape.inputs
    coarse = rng.numpy_random("patterns", shape.name).normal(size=(CLASSES, colours, height // _BLOCK, width // _BLOCK))
    patterns = coarse.repeat(_BLOCK, axis=2).repeat(_BLOCK, axis=3)
    return patterns * _APART / np.linalg.norm(patterns.reshape(CLASSES, -1), axis=1)[:, None, None, None]


def picture_table(shape: PictureShape, folder: Path, settings: Settings, **changes: Any) -> dict[str, Any]:
    """Return the run file of a shape as a table; `changes` replace whole entries."""
    table = {
        "rounds": 1000,
        "device": settings.device,
        "model": {"inputs": list(shape.inputs), "classes": CLASSES, **shape.model},
        "task": {"name": "classify"},
        "data": {"name": "arrays", "path": str(_written(shape, folder)), "clients": "owner"},
        "local": {
            "lr": shape.lr,
            "steps": shape.steps,
            "batch": shape.batch,
            "optimiser": "sgd",
            "schedule": "constant",
            "clip_norm": 0.0,
        },
        "evaluation": {"holdout": 0.0},
    }
    return table | changes


def _written(shape: PictureShape, folder: Path) -> Path:
    """Return an npz file of all clients' pictures."""
    path = folder / f"pictures_{shape.name}_{shape.clients}.npz"
    drawn = [drawn_pictures(shape, shape.examples, client) for client in range(shape.clients)]
    owners = np.repeat([f"client{client:03d}" for client in range(shape.clients)], shape.examples)
    pictures, labels = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    np.savez(path, x=pictures, y=labels, owner=owners)
    return path
