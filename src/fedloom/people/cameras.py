"""Pinhole cameras as OpenCV has them: x to the right, y down, z forwards, in metres."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError

__all__ = ["Camera", "looking_at", "nearest_point", "refuse_odd_cameras", "ring"]

Array = NDArray[np.float64]
_NEAR_M, _FAR_M = 0.3, 30.0
_UPRIGHT = 0.2
"""Of a camera's y axis, downwards: what is left of it where people are looked down at by 78 degrees."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A calibrated camera: a point x of the world is at `matrix @ (rotation @ x + shift)` in pixels times its depth."""

    matrix: Array
    """K [3, 3], in pixels."""
    rotation: Array
    """World to camera, [3, 3]."""
    shift: Array
    """World to camera, [3], metres."""
    height: int
    width: int

    @cached_property
    def centre(self) -> Array:
        """Where it stands, [3]."""
        return -self.rotation.T @ self.shift

    @property
    def focal(self) -> float:
        """Focal length in pixels, the mean of both axes."""
        return float(self.matrix[0, 0] + self.matrix[1, 1]) / 2

    def project(self, points_N3: NDArray[np.floating[Any]]) -> tuple[Array, Array]:
        """Return the pixels [N, 2] and depths [N] in metres of points of the world."""
        inside_N3 = points_N3 @ self.rotation.T + self.shift
        depth_N = inside_N3[:, 2]
        seen_N3 = inside_N3 @ self.matrix.T
        return seen_N3[:, :2] / np.where(np.abs(depth_N) < 1e-9, 1e-9, depth_N)[:, None], depth_N

    def rays(self, pixels_N2: Array) -> Array:
        """Return the directions [N, 3] through pixels, of length 1 along the optical axis: t along one is a depth."""
        ones_N1 = np.ones((len(pixels_N2), 1))
        inside_N3 = np.concatenate([pixels_N2, ones_N1], axis=1) @ np.linalg.inv(self.matrix).T
        return inside_N3 @ self.rotation

    def pixels(self) -> Array:
        """Return the middles of all pixels, [H W, 2], row after row."""
        rows, columns = np.mgrid[: self.height, : self.width] + 0.5
        return np.stack([columns.ravel(), rows.ravel()], axis=1)

    def resized(self, height: int, width: int) -> "Camera":
        """Return the camera of the same picture at another size."""
        scale = np.array([width / self.width, height / self.height, 1.0])
        return Camera(self.matrix * scale[:, None], self.rotation, self.shift, height, width)


def looking_at(eye: Sequence[float], target: Sequence[float], focal: float, height: int, width: int) -> Camera:
    """Return a camera at `eye` that looks at `target`, y of the world up; `focal` in pixels."""
    forward = np.asarray(target, float) - np.asarray(eye, float)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 1.0, 0.0))
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Camera(matrix, rotation, -rotation @ np.asarray(eye, float), height, width)


def ring(
    n_views: int,
    height: int,
    width: int,
    *,
    distance: float = 3.0,
    elevations: Sequence[float] = (0.0, 20.0),
    start: float = 0.0,
    middle: Sequence[float] = (0.0, 0.9, 0.0),
) -> tuple[Camera, ...]:
    """Return cameras around a person, yaw by yaw, whose elevations (degrees) take turns; 2.1 m fill the height."""
    cameras: list[Camera] = []
    for view in range(n_views):
        yaw, pitch = np.deg2rad(start + 360 * view / n_views), np.deg2rad(elevations[view % len(elevations)])
        way = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
        eye = np.asarray(middle) + distance * way
        cameras.append(looking_at(tuple(eye), middle, height * distance / 2.1, height, width))
    return tuple(cameras)


def refuse_odd_cameras(cameras: Sequence[Camera], where: str) -> None:
    """Refuse cameras that are no rotations, in millimetres, or of another convention, and say which was found.

    A person stands where the optical axes meet, so their nearest common point must lie before every camera.
    """
    for view, camera in enumerate(cameras):
        _refuse_one(camera, f"{where}, camera {view}")
    if len(cameras) < 2:
        return
    middle = nearest_point(np.stack([one.centre for one in cameras]), np.stack([one.rotation[2] for one in cameras]))
    depths = np.array([camera.project(middle[None])[1][0] for camera in cameras])
    depth = float(np.median(depths))
    if (depths < -_NEAR_M).mean() > 0.5:
        raise DataError(
            f"{where}: found cameras that look away from where their axes meet, as in OpenGL's convention (z "
            "backwards); allowed is OpenCV's: x right, y down, z forwards; multiply rows 2 and 3 of rotation and shift "
            "by -1."
        )
    if depth > _FAR_M:
        unit = "millimetres" if depth > 1000 else "another unit, as centimetres"
        raise DataError(
            f"{where}: found cameras {depth:.0f} from where their axes meet, which looks like {unit}; "
            f"allowed are metres, {_NEAR_M} to {_FAR_M:.0f}; divide shift."
        )
    if depth < _NEAR_M:
        raise DataError(
            f"{where}: found cameras {depth:.3g} m from where their axes meet, allowed are {_NEAR_M} to {_FAR_M:.0f} "
            "m; is shift in another unit, or do rotation and shift lead from the camera to the world?"
        )
    downwards = np.array([camera.rotation[1] for camera in cameras]).mean(0)
    if downwards[1] > -_UPRIGHT:
        raise DataError(
            f"{where}: found cameras whose y axes point to {(downwards.round(2) + 0.0).tolist()} on the "
            "mean, allowed is downwards in a world with y up, as OpenCV has them; turn the world, or the pictures."
        )


def _refuse_one(camera: Camera, where: str) -> None:
    numbers = np.concatenate([camera.matrix.ravel(), camera.rotation.ravel(), camera.shift.ravel()])
    if not np.isfinite(numbers).all():
        raise DataError(f"{where}: found a number that is not finite; give K, rotation and shift of a calibration.")
    off = np.abs(camera.rotation @ camera.rotation.T - np.eye(3)).max()
    if off <= 1e-3 and np.linalg.det(camera.rotation) < 0:
        raise DataError(
            f"{where}: found a rotation that mirrors, allowed is x right, y down, z forwards; turn one axis."
        )
    if off > 1e-3:
        raise DataError(f"{where}: found a rotation that is none (R Rᵀ differs by {off:.2g}), allowed is 1e-3.")
    if camera.matrix[0, 0] <= 0 or camera.matrix[1, 1] <= 0 or np.abs(camera.matrix[2] - (0, 0, 1)).max() > 1e-6:
        raise DataError(
            f"{where}: found K = {camera.matrix.tolist()}, allowed are focal lengths > 0 and a last row 0 0 1."
        )


def nearest_point(origins_V3: Array, ways_V3: Array) -> Array:
    """Return the point [3] nearest to all lines from origins along ways of length 1, by least squares."""
    across_V33 = np.eye(3) - ways_V3[:, :, None] * ways_V3[:, None, :]
    return np.linalg.lstsq(across_V33.sum(0), (across_V33 @ origins_V3[:, :, None]).sum(0)[:, 0], rcond=None)[0]
