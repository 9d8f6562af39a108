"""Pictures of meshes for a page: shaded, coloured by class, by margin or by error, from any side."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedloom.people.cameras import Camera, ring
from fedloom.people.captures import Photo
from fedloom.people.labels import COLOURS
from fedloom.people.meshes import Floats, Ints, Mesh, vertex_normals
from fedloom.people.raster import averaged, rasterise, shaded

__all__ = ["GREY", "YAWS", "by_class", "heat", "on_white", "picture", "side_by_side", "yaw_cameras"]

YAWS = 4
_PAPER = 1.0
GREY = np.array((0.72, 0.74, 0.78))
"""Of what has no colours of its own."""
_HEAT = np.array([(0.95, 0.96, 0.98), (0.55, 0.75, 0.90), (0.13, 0.45, 0.70), (0.30, 0.16, 0.42), (0.70, 0.10, 0.20)])
"""From nothing to most."""


def yaw_cameras(size: int = 256) -> tuple[Camera, ...]:
    """Return cameras in front, at the left, behind and at the right, at the height of the hips."""
    return ring(YAWS, size, size, elevations=(4.0,), distance=4.0)


def picture(mesh: Mesh, camera: Camera, colours_M3: Floats | None = None, *, lit: bool = True) -> NDArray[np.uint8]:
    """Return a mesh as a camera sees it, [H, W, 3]: in its own colours, in others, or grey; lit from the camera."""
    shown_M3 = colours_M3 if colours_M3 is not None else mesh.colours
    shown_M3 = np.broadcast_to(GREY, mesh.vertices.shape) if shown_M3 is None else shown_M3
    if lit:
        way_M3 = camera.centre - mesh.vertices
        way_M3 /= np.linalg.norm(way_M3, axis=1, keepdims=True)
        # Both sides of open surfaces are shown: the inside of a sleeve is no hole.
        shown_M3 = shown_M3 * (0.45 + 0.55 * np.abs((vertex_normals(mesh) * way_M3).sum(1)))[:, None]
    raster = rasterise(mesh, camera, supersample=2)
    return np.rint(255 * averaged(shaded(raster, shown_M3.clip(0, 1), mesh.faces, _PAPER), 2)).astype(np.uint8)


def on_white(photo: Photo) -> NDArray[np.uint8]:
    """Return what a photograph shows of the person, before white."""
    share_HW1 = photo.mask[:, :, None] / 255
    return np.rint(photo.rgb * share_HW1 + 255 * (1 - share_HW1)).astype(np.uint8)


def by_class(labels_M: Ints) -> Floats:
    """Return the colour [M, 3] of each class, 0 to 1."""
    return COLOURS[labels_M] / 255


def heat(values_M: Floats, most: float) -> Floats:
    """Return colours [M, 3] for numbers from 0 to `most`: pale, blue, violet, red."""
    place_M = (values_M / most).clip(0, 1) * (len(_HEAT) - 1)
    low_M = np.minimum(place_M.astype(int), len(_HEAT) - 2)
    share_M1 = (place_M - low_M)[:, None]
    return (1 - share_M1) * _HEAT[low_M] + share_M1 * _HEAT[low_M + 1]


def side_by_side(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return pictures of one height in a row."""
    return np.concatenate(pictures, axis=1)
