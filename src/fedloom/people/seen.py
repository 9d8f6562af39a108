"""Which faces of a mesh a camera sees, those smaller than a pixel too."""

import numpy as np
from numpy.typing import NDArray

from fedloom.people.cameras import Camera
from fedloom.people.meshes import Mesh, face_normals
from fedloom.people.raster import Raster, rasterise

__all__ = ["faces_seen", "seen_by_any"]

_PARTS, _SLACK_PX = 2, 0.35
_STEEPEST = 0.2
"""Cosine of the angle beyond which a face is too steep for its depth to tell anything."""


def faces_seen(mesh: Mesh, camera: Camera, raster: Raster) -> NDArray[np.bool_]:
    """Return which faces [F] fill a pixel of the raster, or have their middle at the surface that it shows.

    Of faces smaller than a pixel a raster hits some, as it happens. So the others' middles are compared with the plane
    of the face that their pixel shows: a layer 1 cm below is told from the outer one in 128 rows of a person.
    """
    height, width = raster.face_HW.shape
    seen_F = np.zeros(len(mesh.faces) + 1, bool)
    seen_F[raster.face_HW] = True  # -1, no face, is the last
    fine, normal_F3, middle_F3 = camera.resized(height, width), face_normals(mesh), mesh.vertices[mesh.faces].mean(1)
    pixel_F2, depth_F = fine.project(middle_F3)
    way_F3 = middle_F3 - camera.centre
    cosine_F = -(normal_F3 * way_F3).sum(1) / np.linalg.norm(way_F3, axis=1)
    column_F, row_F = np.floor(pixel_F2).astype(np.int64).T
    inside_F = (depth_F > 0) & (column_F >= 0) & (column_F < width) & (row_F >= 0) & (row_F < height)
    asked = np.flatnonzero((cosine_F > _STEEPEST) & inside_F)
    shown_N = raster.face_HW[row_F[asked], column_F[asked]]
    # How far the shown face's plane is along the way to the middle, the middle itself at 1.
    up_N = (normal_F3[shown_N] * (middle_F3[shown_N] - camera.centre)).sum(1)
    against_N = (normal_F3[shown_N] * way_F3[asked]).sum(1)
    along_N = up_N / np.where(np.abs(against_N) < 1e-9, 1e-9, against_N)
    slack_N = _SLACK_PX / fine.focal / cosine_F[asked]
    seen_F[asked[(shown_N < 0) | (along_N >= 1 - slack_N)]] = True
    return seen_F[:-1]


def seen_by_any(mesh: Mesh, cameras: tuple[Camera, ...]) -> NDArray[np.bool_]:
    """Return which faces [F] at least one of the cameras sees, at twice their sizes."""
    seen_F = np.zeros(len(mesh.faces), bool)
    for camera in cameras:
        seen_F |= faces_seen(mesh, camera, rasterise(mesh, camera, supersample=_PARTS))
    return seen_F
