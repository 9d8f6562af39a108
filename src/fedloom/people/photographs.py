"""Photographs of meshes: under a sun and a sky, before a plain background, with masks and the classes of pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import Fraction, Range, check_ranges
from fedloom.people.cameras import Camera
from fedloom.people.labels import BACKGROUND, LABELS
from fedloom.people.meshes import Floats, Ints, Mesh, vertex_normals
from fedloom.people.raster import Raster, Shade, averaged, rasterise, shaded
from fedloom.people.seen import faces_seen

__all__ = ["Light", "Photographs", "photographed"]

_PARTS = 2
"""Of a pixel, each way."""


@dataclass(frozen=True, kw_only=True)
class Light:
    """How a studio is lit."""

    yaw_deg: float = 30.0
    """Where the lamp stands around the person, as cameras of a ring are counted."""
    height_deg: Annotated[float, Range(-90, 90)] = 45.0
    ambient: Fraction = 0.55
    """The share of light that comes from everywhere."""
    cast: tuple[Annotated[float, Range(0, 2)], ...] = (1.0, 1.0, 1.0)
    """What red, green and blue of the person are multiplied by."""
    background: tuple[Fraction, ...] = (0.8, 0.8, 0.8)
    """The colour behind the person."""

    def __post_init__(self) -> None:
        check_ranges(self)
        for name, colour in (("cast", self.cast), ("background", self.background)):
            if len(colour) != 3:
                raise ConfigError(f"{name}: found {len(colour)} numbers, allowed are 3: red, green and blue.")

    def of(self, normals_N3: Floats) -> Floats:
        """Return what colours of surfaces are multiplied by [N, 3], by their outward normals."""
        yaw, height = np.deg2rad(self.yaw_deg), np.deg2rad(self.height_deg)
        way = np.array([np.sin(yaw) * np.cos(height), np.sin(height), np.cos(yaw) * np.cos(height)])
        lit_N = self.ambient + (1 - self.ambient) * np.clip(normals_N3 @ way, 0, None)
        return lit_N[:, None] * np.array(self.cast)


@dataclass(frozen=True, eq=False)
class Photographs:
    """What cameras of one size see."""

    rgb_VHW3: NDArray[np.uint8]
    mask_VHW: NDArray[np.uint8]
    """The share of each pixel that shows the person, 0 to 255."""
    labels_VHW: NDArray[np.uint8]
    """The class that most of each pixel shows."""
    seen_F: NDArray[np.bool_]
    """Which faces at least one camera sees."""


def photographed(
    scene: Mesh, shade: Shade, labels_F: Ints | None, cameras: Sequence[Camera], light: Light
) -> Photographs:
    """Return what cameras of one size see of a mesh, of 2 x 2 parts a pixel.

    `shade` gives the colours [N, 3] of places on faces, 0 to 1; without labels of the faces all of it is one class.
    """
    normals_M3 = vertex_normals(scene)
    classes_F = np.ones(len(scene.faces), np.uint8) if labels_F is None else labels_F
    rasters = [rasterise(scene, camera, supersample=_PARTS) for camera in cameras]
    seen_F = np.any([faces_seen(scene, camera, one) for camera, one in zip(cameras, rasters, strict=True)], axis=0)
    views = [_view(raster, scene, shade, normals_M3, classes_F, light) for raster in rasters]
    rgb, mask, labels = (np.stack(kind) for kind in zip(*views, strict=True))
    return Photographs(rgb, mask, labels, seen_F)


def _view(
    raster: Raster, scene: Mesh, shade: Shade, normals_M3: Floats, classes_F: Ints, light: Light
) -> tuple[NDArray[np.uint8], ...]:
    def lit(face_N: Ints, barycentric_N3: Floats) -> Floats:
        normals_N3 = np.einsum("nc,ncx->nx", barycentric_N3, normals_M3[scene.faces[face_N]])
        length_N1 = np.linalg.norm(normals_N3, axis=1, keepdims=True)
        return shade(face_N, barycentric_N3) * light.of(normals_N3 / np.maximum(length_N1, 1e-9))

    hit_HW = raster.face_HW >= 0
    rgb_HW3 = np.where(hit_HW[:, :, None], shaded(raster, lit, scene.faces), light.background)
    label_HW = np.where(hit_HW, classes_F[raster.face_HW], BACKGROUND)
    shares_HWK = averaged((label_HW[:, :, None] == np.arange(len(LABELS))).astype(np.float32), _PARTS)
    mask_HW = averaged(hit_HW[:, :, None].astype(np.float32), _PARTS)[:, :, 0]
    labels_HW = shares_HWK.argmax(2).astype(np.uint8)
    return _bytes(averaged(np.clip(rgb_HW3, 0, 1), _PARTS)), _bytes(mask_HW), labels_HW


def _bytes(shares: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    return np.rint(255 * shares).astype(np.uint8)
