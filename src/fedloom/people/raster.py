"""Which triangle each pixel shows, and how deep: a z-buffer over all triangles at once, without a graphics library."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError
from fedloom.people.cameras import Camera
from fedloom.people.meshes import Floats, Ints, Mesh

__all__ = ["Raster", "averaged", "depths_of", "rasterise", "shaded"]

_NEAR_M = 0.01
_MOST = 1 << 20
"""Pixels of bounding boxes that are looked at at once: 0.2 GB."""
Shade = Callable[[Ints, Floats], Floats]


@dataclass(frozen=True, eq=False)
class Raster:
    """What each pixel shows."""

    face_HW: NDArray[np.int32]
    """The face, -1 where there is none."""
    barycentric_HW3: NDArray[np.float32]
    """Where on the face, with perspective; zeros where there is none."""
    depth_HW: NDArray[np.float32]
    """Along the optical axis, metres; infinite where there is none."""


@dataclass(frozen=True, eq=False)
class _Corners:
    """Triangles before the camera: pixels [F, 3, 2], depths [F, 3], and what corners of its face each corner mixes."""

    pixels_F32: Floats
    depth_F3: Floats
    face_F: Ints
    mix_F33: Floats | None


def rasterise(mesh: Mesh, camera: Camera, *, supersample: int = 1, cull: bool = False) -> Raster:
    """Return what a camera's pixels show, or their parts where `supersample` is above 1.

    A pixel shows the nearest face that covers its middle. Faces across the near plane are cut there; `cull` leaves out
    those that are seen from behind. DataError for a vertex that is not finite.
    """
    if not np.isfinite(mesh.vertices).all():
        raise DataError("raster: found a vertex that is not finite, allowed are numbers in metres; mend the mesh.")
    fine = camera.resized(camera.height * supersample, camera.width * supersample) if supersample > 1 else camera
    corners = _before(mesh, fine, cull)
    nearest = np.full(fine.height * fine.width, np.inf)
    pixel_C, depth_C, place_C, b1_C, b2_C = _hits(corners, fine, nearest)
    won = np.flatnonzero(depth_C == nearest[pixel_C])
    place = np.full(len(nearest), -1, np.int64)
    place[pixel_C[won[::-1]]] = won[::-1]  # of equals the first
    hit = np.flatnonzero(place >= 0)
    at = place[hit]
    row = place_C[at]
    shares_H3 = np.stack([1 - b1_C[at] - b2_C[at], b1_C[at], b2_C[at]], axis=1) / corners.depth_F3[row]
    shares_H3 /= shares_H3.sum(1, keepdims=True)
    if corners.mix_F33 is not None:
        shares_H3 = np.einsum("hi,hij->hj", shares_H3, corners.mix_F33[row])
    face, barycentric = np.full(len(nearest), -1, np.int32), np.zeros((len(nearest), 3), np.float32)
    face[hit], barycentric[hit] = corners.face_F[row], shares_H3
    shape = fine.height, fine.width
    return Raster(face.reshape(shape), barycentric.reshape(*shape, 3), nearest.astype(np.float32).reshape(shape))


def depths_of(mesh: Mesh, cameras: Iterable[Camera]) -> Floats:
    """Return the depths [V, H, W] of a surface as cameras of one size see it, infinite where it is not."""
    return np.stack([rasterise(mesh, camera).depth_HW for camera in cameras])


def _before(mesh: Mesh, camera: Camera, cull: bool) -> _Corners:
    inside_M3 = mesh.vertices @ camera.rotation.T + camera.shift
    depth_F3 = inside_M3[:, 2][mesh.faces]
    behind_F = (depth_F3 < _NEAR_M).sum(1)
    whole = np.flatnonzero(behind_F == 0)
    seen_M3 = inside_M3 @ camera.matrix.T
    uv_M2 = seen_M3[:, :2] / np.where(np.abs(inside_M3[:, 2:]) < 1e-9, 1e-9, inside_M3[:, 2:])
    plain = _Corners(uv_M2[mesh.faces[whole]], depth_F3[whole], whole, None)
    cut = np.flatnonzero((behind_F > 0) & (behind_F < 3))
    corners = plain if not len(cut) else _with_cut(plain, inside_M3[mesh.faces[cut]], cut, camera)
    if not cull:
        return corners
    turned = _twice_area(corners.pixels_F32) < 0  # y down: a face seen from outside runs against the clock
    mix = None if corners.mix_F33 is None else corners.mix_F33[turned]
    return _Corners(corners.pixels_F32[turned], corners.depth_F3[turned], corners.face_F[turned], mix)


def _twice_area(pixels_F32: Floats) -> Floats:
    one_F2, other_F2 = pixels_F32[:, 1] - pixels_F32[:, 0], pixels_F32[:, 2] - pixels_F32[:, 0]
    return one_F2[:, 0] * other_F2[:, 1] - one_F2[:, 1] * other_F2[:, 0]


def _with_cut(plain: _Corners, inside_C33: Floats, cut: Ints, camera: Camera) -> _Corners:
    """Return the triangles with those across the near plane cut there, each into one or two."""
    mixes, owners = list[Floats](), list[int]()
    for corners_33, owner in zip(inside_C33, cut.tolist(), strict=True):
        polygon = _clipped(corners_33[:, 2])
        for second in range(1, len(polygon) - 1):
            mixes.append(np.stack([polygon[0], polygon[second], polygon[second + 1]]))
            owners.append(owner)
    rows = {owner: row for row, owner in enumerate(cut.tolist())}
    mix_N33 = np.stack(mixes)
    points_N33 = mix_N33 @ inside_C33[[rows[owner] for owner in owners]]
    seen_N33 = points_N33 @ camera.matrix.T
    whole = np.broadcast_to(np.eye(3), (len(plain.face_F), 3, 3))
    return _Corners(
        np.concatenate([plain.pixels_F32, seen_N33[:, :, :2] / points_N33[:, :, 2:]]),
        np.concatenate([plain.depth_F3, points_N33[:, :, 2]]),
        np.concatenate([plain.face_F, np.array(owners)]),
        np.concatenate([whole, mix_N33]),
    )


def _clipped(depth_3: Floats) -> list[Floats]:
    """Return the corners of what of a triangle lies before the near plane, as shares of its own corners."""
    polygon, own = list[Floats](), np.eye(3)
    for at in range(3):
        after = (at + 1) % 3
        if depth_3[at] >= _NEAR_M:
            polygon.append(own[at])
        if (depth_3[at] < _NEAR_M) != (depth_3[after] < _NEAR_M):
            share = (_NEAR_M - depth_3[at]) / (depth_3[after] - depth_3[at])
            polygon.append((1 - share) * own[at] + share * own[after])
    return polygon


def _hits(corners: _Corners, camera: Camera, nearest: Floats) -> list[Any]:
    """Return what `_covered` does for all triangles, of hits no farther than those before; fill the nearest depths."""
    low_F2, high_F2 = corners.pixels_F32.min(1), corners.pixels_F32.max(1)
    size = np.array([camera.width, camera.height])
    first_F2 = np.clip(np.ceil(np.clip(low_F2, -1, size + 1) - 0.5), 0, None).astype(np.int64)
    last_F2 = np.minimum(np.floor(np.clip(high_F2, -1, size + 1) - 0.5), size - 1).astype(np.int64)
    span_F2 = np.maximum(last_F2 - first_F2 + 1, 0)
    found = list[tuple[Any, ...]]()
    for kept in _groups(span_F2.prod(1) * (_twice_area(corners.pixels_F32) != 0)):
        hits = _covered(corners, camera, kept, first_F2[kept], span_F2[kept])
        pixel_C, depth_C = hits[:2]
        np.minimum.at(nearest, pixel_C, depth_C)
        near = np.flatnonzero(depth_C == nearest[pixel_C])
        found.append(tuple(each_C[near] for each_C in hits))
    return [np.concatenate(each) for each in zip(*found, strict=True)]


def _groups(count_F: Ints) -> Iterator[Ints]:
    """Yield the triangles that have pixels to look at, as many at a time as memory allows; at least one group."""
    kept = np.flatnonzero(count_F)
    yield from np.split(kept, np.flatnonzero(np.diff(np.cumsum(count_F[kept]) // _MOST)) + 1)


def _covered(corners: _Corners, camera: Camera, kept: Ints, first_K2: Ints, span_K2: Ints) -> tuple[Any, ...]:
    """Return the pixels whose middles triangles cover: pixel, depth, triangle, its second and third share."""
    count_K = span_K2.prod(1)
    row_C = np.repeat(np.arange(len(kept)), count_K)
    local_C = np.arange(len(row_C)) - np.repeat(np.cumsum(count_K) - count_K, count_K)
    down_C, along_C = np.divmod(local_C, np.repeat(span_K2[:, 0], count_K))
    column_C = along_C + np.repeat(first_K2[:, 0], count_K)
    line_C = down_C + np.repeat(first_K2[:, 1], count_K)
    slopes_K6 = _planes(corners.pixels_F32[kept])
    dx_C, dy_C = column_C + 0.5, line_C + 0.5
    slope_C6 = slopes_K6[row_C]
    b1_C = slope_C6[:, 0] * dx_C + slope_C6[:, 1] * dy_C + slope_C6[:, 2]
    b2_C = slope_C6[:, 3] * dx_C + slope_C6[:, 4] * dy_C + slope_C6[:, 5]
    inside = np.flatnonzero((b1_C >= -1e-9) & (b2_C >= -1e-9) & (b1_C + b2_C <= 1 + 1e-9))
    place_C, b1_C, b2_C = kept[row_C[inside]], b1_C[inside], b2_C[inside]
    closeness_C3 = (1 / corners.depth_F3)[place_C]
    near_C = (1 - b1_C - b2_C) * closeness_C3[:, 0] + b1_C * closeness_C3[:, 1] + b2_C * closeness_C3[:, 2]
    return line_C[inside] * camera.width + column_C[inside], 1 / near_C, place_C, b1_C, b2_C


def _planes(pixels_K32: Floats) -> Floats:
    """Return by what the second and third share of a plane grow with x, y, and what they are at the corner [K, 6]."""
    (x0, y0), (x1, y1), (x2, y2) = (pixels_K32[:, corner].T for corner in range(3))
    own = ((y2 - y0), (x0 - x2), (x2 * y0 - x0 * y2), (y0 - y1), (x1 - x0), (x0 * y1 - x1 * y0))
    return np.stack(own, axis=1) / _twice_area(pixels_K32)[:, None]


def shaded(raster: Raster, values: Floats | Shade, faces: Ints, nothing: float = 0.0) -> Floats:
    """Return values [H, W, C] of pixels: of the vertices [M, C], mixed, or what a function says of places on faces."""
    hit = raster.face_HW >= 0
    face_N, barycentric_N3 = raster.face_HW[hit], raster.barycentric_HW3[hit]
    if callable(values):
        found_NC = values(face_N, barycentric_N3)
    else:
        found_NC = np.einsum("nc,ncx->nx", barycentric_N3, values[faces[face_N]])
    picture = np.full((*hit.shape, found_NC.shape[1]), nothing)
    picture[hit] = found_NC
    return picture


def averaged(picture_HWC: Floats, factor: int) -> Floats:
    """Return a picture of parts of pixels as one of pixels [H / factor, W / factor, C]: means of the parts."""
    height, width, channels = picture_HWC.shape
    return picture_HWC.reshape(height // factor, factor, width // factor, factor, channels).mean((1, 3))
