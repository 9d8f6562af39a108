"""What each photograph tells of each point of a surface, and how far it is to be believed: a factor each, 0 to 1."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedloom.base.errors import DataError
from fedloom.base.extras import library
from fedloom.people.captures import Parse, Photo
from fedloom.people.meshes import Floats, Ints
from fedloom.people.potts import SurfacePoints

__all__ = ["Sights", "boundary", "confidence", "incidence", "sights", "tempered", "visibility"]


@dataclass(frozen=True, eq=False)
class Sights:
    """What V views show where N points are projected."""

    parsed_VNK: Floats
    """Probabilities of the classes of a person, the first of them class 1; they sum to 1."""
    person_VN: Floats
    """Whether the pixel shows the person, 0 to 1; 0 out of the picture and behind the camera."""
    behind_VN: Floats
    """Metres by which a point lies behind what the view sees of the surface; infinite where it sees none."""
    cosine_VN: Floats
    """Of the angle between the normal and the way to the camera."""
    edge_px_VN: Floats
    """Pixels to the nearest change of label."""

    @property
    def labels_VN(self) -> Ints:
        """The likeliest class of a person, less 1."""
        return self.parsed_VNK.argmax(-1)


def sights(where: SurfacePoints, photos: Sequence[Photo], depth_VHW: Floats) -> Sights:
    """Return what photographs show at points; `depth_VHW` are depths of the surface, not finite where there is none.

    Raises DataError for a photograph without parse, sizes that differ, and for no photograph at all.
    """
    _refuse_odd(photos, depth_VHW)
    each = [
        _sight(where, photo, photo.parse, depth) for photo, depth in zip(photos, depth_VHW, strict=True) if photo.parse
    ]
    return Sights(*(np.stack(values) for values in zip(*each, strict=True)))


def _sight(where: SurfacePoints, photo: Photo, parse: Parse, depth_HW: Floats) -> tuple[Floats, ...]:
    pixels_N2, depth_N = photo.camera.project(where.points_N3)
    height, width = photo.mask.shape
    inside_N = (depth_N > 0) & (pixels_N2 >= 0).all(1) & (pixels_N2 < (width, height)).all(1)
    pixels_N2 = pixels_N2.clip(0, (width - 1e-6, height - 1e-6))
    column_N, row_N = pixels_N2.astype(int).T
    parsed_NK = _between(parse.probabilities[1:].astype(float), pixels_N2).T
    total_N1 = parsed_NK.sum(1, keepdims=True)
    even = 1 / parsed_NK.shape[1]
    parsed_NK = np.where(total_N1 > 1e-6, parsed_NK / np.where(total_N1 > 1e-6, total_N1, 1), even)
    person_N = _between(photo.mask[None].astype(float), pixels_N2)[0] / 255 * inside_N
    seen_N = depth_HW[row_N, column_N]
    behind_N = np.where(np.isfinite(seen_N), depth_N - np.where(np.isfinite(seen_N), seen_N, 0), np.inf)
    away_N3 = photo.camera.centre - where.points_N3
    cosine_N = np.einsum("nd,nd->n", where.normals_N3, away_N3) / np.linalg.norm(away_N3, axis=1)
    return parsed_NK, person_N, behind_N, cosine_N, _to_edge(parse.labels)[row_N, column_N]


def _between(values_CHW: Floats, pixels_N2: Floats) -> Floats:
    """Return values [C, N] between the middles of pixels, linearly."""
    height, width = values_CHW.shape[1:]
    at_N2 = (pixels_N2 - 0.5).clip(0, (width - 1, height - 1))
    left_N, top_N = np.minimum(at_N2.astype(int), (max(width - 2, 0), max(height - 2, 0))).T
    right_N, below_N = np.minimum(left_N + 1, width - 1), np.minimum(top_N + 1, height - 1)
    x_N, y_N = at_N2[:, 0] - left_N, at_N2[:, 1] - top_N
    upper = values_CHW[:, top_N, left_N] * (1 - x_N) + values_CHW[:, top_N, right_N] * x_N
    lower = values_CHW[:, below_N, left_N] * (1 - x_N) + values_CHW[:, below_N, right_N] * x_N
    return upper * (1 - y_N) + lower * y_N


def _to_edge(labels_HW: Ints) -> Floats:
    """Return the distance of each pixel to the nearest with another neighbour, and half a pixel, [H, W]."""
    edge_HW = np.zeros(labels_HW.shape, bool)
    down, across = labels_HW[1:] != labels_HW[:-1], labels_HW[:, 1:] != labels_HW[:, :-1]
    edge_HW[1:] |= down
    edge_HW[:-1] |= down
    edge_HW[:, 1:] |= across
    edge_HW[:, :-1] |= across
    if not edge_HW.any():
        return np.full(labels_HW.shape, np.inf)
    return library("scipy.ndimage", "people").distance_transform_edt(~edge_HW) + 0.5


def visibility(seen: Sights, behind_m: float, fade_m: float, least: float) -> Floats:
    """Return whether a pixel speaks of the point: 1 down to `behind_m` behind the surface, then fading.

    Where the pixel shows the person it is `least` or more: a label of an arm tells something of the trunk behind.
    """
    behind_VN = np.where(np.isfinite(seen.behind_VN), seen.behind_VN, 1e3)
    return np.maximum(np.exp(-(behind_VN - behind_m).clip(0) / fade_m), least) * seen.person_VN


def incidence(seen: Sights, least: float) -> Floats:
    """Return the cosine of the angle of sight, `least` or more: what is seen at a grazing angle is unreliable."""
    return seen.cosine_VN.clip(least, 1)


def boundary(seen: Sights, width_px: float) -> Floats:
    """Return 1 - exp(-(distance to a change of label / width)²): a parser's edges jitter."""
    return 1 - np.exp(-((seen.edge_px_VN / width_px) ** 2))


def tempered(parsed_VNK: Floats, temperature: float) -> Floats:
    """Return probabilities to the power 1 / temperature: above 1 they are less sure."""
    raised_VNK = np.exp(np.log(parsed_VNK.clip(1e-9)) / temperature)
    return raised_VNK / raised_VNK.sum(-1, keepdims=True)


def confidence(parsed_VNK: Floats, by_entropy: bool) -> Floats:
    """Return how sure a parser is: 1 - entropy / log K, or the likeliest class's probability."""
    if not by_entropy:
        return parsed_VNK.max(-1)
    entropy_VN = -(parsed_VNK * np.log(parsed_VNK.clip(1e-12))).sum(-1)
    return (1 - entropy_VN / np.log(parsed_VNK.shape[-1])).clip(0, 1)


def _refuse_odd(photos: Sequence[Photo], depth_VHW: Floats) -> None:
    if not photos:
        raise DataError("separation: found no photograph, allowed is one or more.")
    if depth_VHW.shape != (len(photos), *photos[0].mask.shape):
        allowed = (len(photos), *photos[0].mask.shape)
        raise DataError(
            f"separation: found depth maps {depth_VHW.shape}, allowed are {allowed}, one for each photograph."
        )
    kinds = {photo.parse.probabilities.shape[0] for photo in photos if photo.parse is not None}
    for view, photo in enumerate(photos):
        if photo.parse is None:
            raise DataError(f"photo {view}: found no parse, allowed are photographs with one; run a parser on it.")
        if photo.parse.probabilities.shape[1:] != photo.mask.shape or photo.mask.shape != photos[0].mask.shape:
            raise DataError(
                f"photo {view}: found a parse {photo.parse.probabilities.shape} and a mask {photo.mask.shape}, allowed "
                f"is one size for all, {photos[0].mask.shape}; resize them."
            )
    if len(kinds) != 1 or min(kinds) < 3:
        raise DataError(f"separation: found parses of {sorted(kinds)} classes, allowed is one number of 3 or more.")
