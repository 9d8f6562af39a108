"""Where in the world a photographed person stands, by cameras and masks alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedloom.people.cameras import nearest_point
from fedloom.people.captures import Photo

__all__ = ["middle_of", "moved_by"]

Array = NDArray[np.float64]


def middle_of(photos: Sequence[Photo]) -> Array:
    """Return the point [3] nearest to the rays through the middles of all masks: a person's middle, roughly."""
    ways: list[Array] = []
    for photo in photos:
        rows, columns = np.nonzero(photo.mask > 127)
        way = photo.camera.rays(np.array([[columns.mean() + 0.5, rows.mean() + 0.5]]))[0]
        ways.append(way / np.linalg.norm(way))
    return nearest_point(np.stack([photo.camera.centre for photo in photos]), np.stack(ways))


def moved_by(photos: Sequence[Photo], shift: Array) -> tuple[Photo, ...]:
    """Return the photographs in a world all of which, cameras too, is moved by a shift [3], metres."""
    return tuple(
        replace(one, camera=replace(one.camera, shift=one.camera.shift - one.camera.rotation @ shift)) for one in photos
    )
