"""A capture: one person's photographs of one moment, with cameras, masks and what a parser told.

Nothing of it is 3-D: training data have no depth, no surface and no body.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.people.cameras import Camera

__all__ = ["Capture", "Parse", "Photo"]


@dataclass(frozen=True, eq=False)
class Parse:
    """What a parser told of a picture."""

    probabilities: NDArray[np.floating[Any]]
    """[K, H, W] of the common classes, over K sums of 1; of hard labels, from their confidence."""

    @property
    def labels(self) -> NDArray[np.integer[Any]]:
        """The likeliest class of each pixel [H, W]."""
        return self.probabilities.argmax(axis=0)


@dataclass(frozen=True, eq=False)
class Photo:
    """One calibrated photograph."""

    rgb: NDArray[np.uint8]
    """[H, W, 3]"""
    mask: NDArray[np.uint8]
    """Whether a pixel shows the person, [H, W], 0 to 255 for 0 to 1."""
    camera: Camera
    parse: Parse | None = None


@dataclass(frozen=True, eq=False)
class Capture:
    """One person's photographs of one moment."""

    name: str
    photos: tuple[Photo, ...]
    studio: str = ""
    """Who made them: the client."""
    consent: bool = False
    """Whether the person has agreed to be reconstructed; without it a capture is refused."""

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """The cameras of the photographs."""
        return tuple(photo.camera for photo in self.photos)
