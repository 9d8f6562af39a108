"""A capture as the field reads it: pictures filled, silhouettes as distances, and the visual hull that they make."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedloom.base.extras import library
from fedloom.people.cameras import Camera
from fedloom.people.captures import Capture

__all__ = [
    "HIGH",
    "LOW",
    "Scene",
    "box_span",
    "coarse_hull",
    "outlines",
    "scene_of",
    "silhouette_distance",
]

LOW, HIGH = (-1.05, -0.15, -0.75), (1.05, 2.1, 0.75)
"""The box that people stand in, metres."""
_CELL = 0.03
"""Of the coarse hull: it says where to look, and its error is a fraction of the 4 cm that are looked beyond it."""
_DEPTH_SIZE, _STEPS, _FAR = 64, 128, 100.0
_FINER = 4
"""By how much masks are enlarged to cut them."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What of a capture passes the field; there is no depth, no surface and no body in it."""

    name: str
    key: str
    """A hash of all that was photographed."""
    rgb_V3HW: Tensor
    """0 to 1; the background has the colour of the nearest pixel of the person."""
    mask_VHW: Tensor
    distance_VHW: Tensor
    """From the silhouette in pixels, negative inside."""
    matrix_V33: Tensor
    rotation_V33: Tensor
    shift_V3: Tensor
    hull_XYZ: Tensor
    """The hull's distance on a coarse grid over the box, [nz, ny, nx], metres."""
    hull_depth_VHW: Tensor
    """Depth of the hull's first hit, 64 x 64; far away where there is none."""

    @property
    def n_views(self) -> int:
        """How many photographs there are."""
        return len(self.mask_VHW)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of a picture."""
        return self.mask_VHW.shape[1], self.mask_VHW.shape[2]

    @property
    def centre_V3(self) -> Tensor:
        """Where the cameras stand."""
        return -(self.rotation_V33.mT @ self.shift_V3[:, :, None])[:, :, 0]

    @property
    def focal_V(self) -> Tensor:
        """Focal lengths in pixels."""
        return (self.matrix_V33[:, 0, 0] + self.matrix_V33[:, 1, 1]) / 2

    def on(self, device: torch.device) -> "Scene":
        """Return the scene on a device."""
        if self.mask_VHW.device == device:
            return self
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)


def scene_of(capture: Capture) -> Scene:
    """Return a capture's scene; its hull is of all masks."""
    photos = capture.photos
    masks = [photo.mask.astype(np.float32) / np.float32(255) for photo in photos]
    bare = Scene(
        name=capture.name,
        key=_hash(capture),
        rgb_V3HW=torch.stack([_filled(photo.rgb, mask) for photo, mask in zip(photos, masks, strict=True)]),
        mask_VHW=_stacked(masks),
        distance_VHW=torch.stack([silhouette_distance(mask) for mask in masks]),
        matrix_V33=_stacked([photo.camera.matrix for photo in photos]),
        rotation_V33=_stacked([photo.camera.rotation for photo in photos]),
        shift_V3=_stacked([photo.camera.shift for photo in photos]),
        hull_XYZ=torch.zeros(0),
        hull_depth_VHW=torch.zeros(0),
    )
    hull_XYZ = _coarse_hull(bare)
    depths = [_hull_depth(photo.camera, hull_XYZ) for photo in photos]
    return replace(bare, hull_XYZ=hull_XYZ, hull_depth_VHW=torch.stack(depths))


def _hash(capture: Capture) -> str:
    hasher = hashlib.sha256()
    for photo in capture.photos:
        camera = photo.camera
        for array in (photo.rgb, photo.mask, camera.matrix, camera.rotation, camera.shift):
            hasher.update(repr(array.shape).encode() + array.tobytes())
    return hasher.hexdigest()


def _stacked(arrays: list[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays).astype(np.float32))


def silhouette_distance(mask_HW: NDArray[np.float32]) -> Tensor:
    """Return the distance from the silhouette in pixels [H, W], negative inside; of a soft mask to a part of a pixel.

    The mask is enlarged, cut at one half, and distances are taken there.
    """
    distances = library("scipy.ndimage", "people").distance_transform_edt
    soft = functional.interpolate(torch.from_numpy(mask_HW)[None, None], scale_factor=_FINER, mode="bilinear")[0, 0]
    inside = soft.numpy() > 0.5
    outwards, inwards = distances(~inside), distances(inside)
    fine = torch.from_numpy(np.where(inside, 0.5 - inwards, outwards - 0.5).astype(np.float32))
    return functional.avg_pool2d(fine[None, None], _FINER)[0, 0] / _FINER


def _filled(rgb_HW3: NDArray[np.uint8], mask_HW: NDArray[np.float32]) -> Tensor:
    """Return the picture [3, H, W], the background in the colour of the nearest pixel that is surely the person's."""
    distances = library("scipy.ndimage", "people").distance_transform_edt
    _, (rows, columns) = distances(mask_HW < 0.99, return_indices=True)
    return torch.from_numpy((rgb_HW3[rows, columns] / 255).astype(np.float32)).permute(2, 0, 1).contiguous()


def outlines(points_N3: Tensor, scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """Return how points [N, 3] lie to silhouettes: distance [V, N] in metres, grid places [V, N, 1, 2], depths [V, N].

    The greatest of the distances is the visual hull's.
    """
    inside_V3N = scene.rotation_V33 @ points_N3.T + scene.shift_V3[:, :, None]
    depth_VN = inside_V3N[:, 2].clamp(min=1e-3)
    uv_VN2 = ((scene.matrix_V33 @ inside_V3N)[:, :2] / depth_VN[:, None]).transpose(1, 2)
    height, width = scene.size
    grid_VN12 = (2 * uv_VN2 / points_N3.new_tensor([width, height]) - 1)[:, :, None]
    found = functional.grid_sample(scene.distance_VHW[:, None], grid_VN12, padding_mode="border", align_corners=False)
    return found[:, 0, :, 0] * depth_VN / scene.focal_V[:, None], grid_VN12, depth_VN


def _coarse_hull(scene: Scene) -> Tensor:
    axes = [torch.arange(low, high + _CELL, _CELL) for low, high in zip(LOW, HIGH, strict=True)]
    z, y, x = torch.meshgrid(*axes[::-1], indexing="ij")
    distance_VN, _, _ = outlines(torch.stack([x, y, z], dim=-1).reshape(-1, 3), scene)
    return distance_VN.amax(0).reshape(z.shape)


def coarse_hull(points_N3: Tensor, hull_XYZ: Tensor) -> Tensor:
    """Return the hull's distance [N] at points by its coarse grid, metres."""
    nz, ny, nx = hull_XYZ.shape
    low = points_N3.new_tensor(LOW)
    span = points_N3.new_tensor([nx - 1, ny - 1, nz - 1]) * _CELL
    grid_N3 = 2 * (points_N3 - low) / span - 1
    return functional.grid_sample(
        hull_XYZ[None, None], grid_N3[None, :, None, None], padding_mode="border", align_corners=True
    ).flatten()


def box_span(origin_N3: Tensor, direction_N3: Tensor) -> tuple[Tensor, Tensor]:
    """Return where rays enter and leave the box [N], in lengths of their directions; leaving first where they miss."""
    safe_N3 = torch.where(direction_N3.abs() < 1e-9, 1e-9, direction_N3)
    one_N3 = (origin_N3.new_tensor(LOW) - origin_N3) / safe_N3
    other_N3 = (origin_N3.new_tensor(HIGH) - origin_N3) / safe_N3
    enter_N = torch.minimum(one_N3, other_N3).amax(1).clamp(min=0.05)
    return enter_N, torch.maximum(one_N3, other_N3).amin(1)


def _hull_depth(camera: Camera, hull_XYZ: Tensor) -> Tensor:
    small = camera.resized(_DEPTH_SIZE, _DEPTH_SIZE)
    direction_N3 = torch.from_numpy(small.rays(small.pixels()).astype(np.float32))
    origin_N3 = torch.from_numpy(small.centre.astype(np.float32)).expand_as(direction_N3)
    enter_N, leave_N = box_span(origin_N3, direction_N3)
    steps_S = torch.linspace(0, 1, _STEPS)
    t_NS = enter_N[:, None] + (leave_N - enter_N).clamp(min=0)[:, None] * steps_S
    points = origin_N3[:, None] + t_NS[:, :, None] * direction_N3[:, None]
    inside_NS = coarse_hull(points.reshape(-1, 3), hull_XYZ).reshape(t_NS.shape) < 0
    first_N = inside_NS.float().argmax(1)
    hit_N = inside_NS.any(1) & (leave_N > enter_N)
    depth_N = t_NS.gather(1, first_N[:, None])[:, 0]
    return torch.where(hit_N, depth_N, _FAR).reshape(_DEPTH_SIZE, _DEPTH_SIZE)
