"""A body made of 26 tapered capsules: no file, no licence, SMPL's 24 joints, ten directions of shape."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from fedloom.base.extras import library
from fedloom.base.plugin import Positive, plugin
from fedloom.people.body import Body, BodyModel, refuse_odd
from fedloom.people.meshes import Floats

__all__ = ["PARENTS", "Capsules", "Procedural", "regressor_of"]

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
_HALF = {  # left is +x; those of the middle have x = 0
    **{
        0: (0.0, 0.95, 0.0),
        1: (0.09, 0.89, 0.0),
        3: (0.0, 1.06, -0.01),
        4: (0.105, 0.49, 0.005),
        6: (0.0, 1.18, -0.01),
    },
    **{7: (0.11, 0.085, -0.02), 9: (0.0, 1.28, -0.01), 10: (0.12, 0.035, 0.1), 12: (0.0, 1.47, -0.01)},
    **{13: (0.07, 1.40, -0.01), 15: (0.0, 1.57, 0.01), 16: (0.18, 1.415, -0.015), 18: (0.44, 1.41, -0.02)},
    **{20: (0.69, 1.41, -0.01), 22: (0.78, 1.41, 0.0)},
}
_MIRRORED = {2: 1, 5: 4, 8: 7, 11: 10, 14: 13, 17: 16, 19: 18, 21: 20, 23: 22}
_MIDDLE = (  # joint, from, to, radii, how deep it is for its width
    (0, (-0.055, 0.92, 0.0), (0.055, 0.92, 0.0), 0.105, 0.105, 0.85),
    (0, (0.0, 0.94, 0.0), (0.0, 1.06, 0.0), 0.112, 0.105, 0.85),
    (0, (-0.06, 0.90, -0.03), (0.06, 0.90, -0.03), 0.085, 0.085, 1.0),
    (3, (0.0, 1.06, 0.0), (0.0, 1.18, 0.0), 0.105, 0.112, 0.8),
    (6, (0.0, 1.18, 0.0), (0.0, 1.28, 0.0), 0.115, 0.122, 0.8),
    (9, (0.0, 1.28, 0.0), (0.0, 1.40, -0.01), 0.12, 0.085, 0.8),
    (12, (0.0, 1.44, -0.01), (0.0, 1.56, 0.005), 0.05, 0.046, 1.0),
    (15, (0.0, 1.615, 0.012), (0.0, 1.665, 0.006), 0.076, 0.078, 1.12),
)
_SIDES = (  # of the left side
    (13, (0.03, 1.33, -0.005), (0.13, 1.39, -0.01), 0.085, 0.055, 0.85),
    (16, (0.16, 1.412, -0.012), (0.44, 1.41, -0.02), 0.052, 0.039, 1.0),
    (18, (0.44, 1.41, -0.02), (0.69, 1.41, -0.01), 0.038, 0.026, 1.0),
    (20, (0.69, 1.41, -0.01), (0.78, 1.41, 0.0), 0.028, 0.026, 1.0),
    (22, (0.78, 1.41, 0.0), (0.855, 1.405, 0.005), 0.024, 0.014, 1.0),
    (1, (0.088, 0.86, 0.0), (0.105, 0.49, 0.005), 0.082, 0.054, 1.0),
    (4, (0.105, 0.49, 0.005), (0.11, 0.10, -0.02), 0.051, 0.034, 1.0),
    (7, (0.11, 0.075, -0.035), (0.12, 0.042, 0.08), 0.038, 0.034, 1.0),
    (10, (0.12, 0.04, 0.08), (0.125, 0.03, 0.14), 0.033, 0.026, 1.0),
)
_SMOOTH_M, _SPREAD_M, _NEAREST = 0.025, 0.02, 60
TORSO, ARMS, LEGS = (0, 3, 6, 9, 13, 14), (16, 17, 18, 19, 20, 21, 22, 23), (1, 2, 4, 5, 7, 8, 10, 11)


@dataclass(frozen=True, eq=False)
class Capsules:
    """Tapered capsules, each carried by a joint."""

    joint_C: np.ndarray
    start_C3: Floats
    end_C3: Floats
    radius_C2: Floats
    depth_C: Floats

    def feet(self, points_N3: Floats) -> tuple[Floats, Floats]:
        """Return what leads from each capsule's axis to points [C, N, 3], and their distances from its skin [C, N]."""
        along_C3 = self.end_C3 - self.start_C3
        from_CN3 = points_N3[None] - self.start_C3[:, None]
        share_CN = np.einsum("cnd,cd->cn", from_CN3, along_C3) / (along_C3**2).sum(1)[:, None]
        share_CN = share_CN.clip(0, 1)
        off_CN3 = from_CN3 - share_CN[:, :, None] * along_C3[:, None]
        radius_CN = self.radius_C2[:, :1] + share_CN * (self.radius_C2[:, 1:] - self.radius_C2[:, :1])
        flat_CN3 = off_CN3 / np.stack([np.ones_like(self.depth_C)] * 2 + [self.depth_C], axis=1)[:, None]
        return off_CN3, np.linalg.norm(flat_CN3, axis=2) - radius_CN

    def distance(self, points_N3: Floats) -> Floats:
        """Return the distance from their smooth union [N]: -k log sum exp(-d / k)."""
        _, distance_CN = self.feet(points_N3)
        least_N = distance_CN.min(0)
        return least_N - _SMOOTH_M * np.log(np.exp((least_N - distance_CN) / _SMOOTH_M).sum(0))

    def weights(self, points_N3: Floats) -> Floats:
        """Return how much each joint carries points [N, J]: softmax of -distance / 2 cm over capsules, by joint."""
        _, distance_CN = self.feet(points_N3)
        soft_CN = np.exp((distance_CN.min(0) - distance_CN) / _SPREAD_M)
        soft_CN /= soft_CN.sum(0)
        carried = np.zeros((len(points_N3), len(PARENTS)))
        np.add.at(carried.T, self.joint_C, soft_CN)
        return carried


def capsules() -> Capsules:
    """Return the 26 capsules."""
    flip = np.array((-1.0, 1.0, 1.0))
    other = {left: right for right, left in _MIRRORED.items()}
    right = [(other[j], tuple(flip * a), tuple(flip * b), *rest) for j, a, b, *rest in _SIDES]
    joints, starts, ends, first, last, depth = zip(*_MIDDLE, *_SIDES, *right, strict=True)
    return Capsules(
        np.array(joints), np.array(starts), np.array(ends), np.stack([first, last], axis=1), np.array(depth)
    )


def _joints() -> Floats:
    left = {**_HALF, **{right: (-_HALF[own][0], *_HALF[own][1:]) for right, own in _MIRRORED.items()}}
    return np.array([left[joint] for joint in range(len(PARENTS))])


@plugin("procedural")
class Procedural(BodyModel):
    """The body that needs nothing: 1.75 m tall, arms held out sideways in the rest pose."""

    cell_m: Positive = 0.017
    """Side of the cells in which its skin is looked for, metres."""

    def load(self) -> Body:
        """Return the body, made once a process."""
        return _made(self.cell_m)


@cache
def _made(cell_m: float) -> Body:
    parts, joints_J3 = capsules(), _joints()
    vertices_M3, faces_F3 = _skin(parts, cell_m)
    weights_MJ = parts.weights(vertices_M3)
    body = Body(
        template_M3=vertices_M3,
        faces_F3=faces_F3,
        shape_directions_M3S=_shapes(parts, vertices_M3, weights_MJ),
        pose_directions_M3P=None,
        regressor_JM=regressor_of(vertices_M3, joints_J3),
        weights_MJ=weights_MJ,
        parents=PARENTS,
    )
    return refuse_odd(body, "procedural body")


def _skin(parts: Capsules, cell_m: float) -> tuple[Floats, np.ndarray]:
    low, high = np.array((-0.93, -0.05, -0.22)), np.array((0.93, 1.83, 0.24))
    axes = [np.arange(start, end, cell_m) for start, end in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    flat_N3 = points.reshape(-1, 3)
    value_N = np.concatenate([parts.distance(some) for some in np.array_split(flat_N3, 40)])
    cubes = library("skimage.measure", "people").marching_cubes
    vertices, faces, _, _ = cubes(value_N.reshape(points.shape[:3]), 0.0, spacing=(cell_m,) * 3)
    vertices = vertices.astype(np.float64) + low
    return vertices - (0, vertices[:, 1].min(), 0), faces.astype(np.int64)


def regressor_of(vertices_M3: Floats, joints_J3: Floats) -> Floats:
    """Return the smallest affine weights on the nearest vertices that give each joint exactly."""
    near_JN = library("scipy.spatial", "people").cKDTree(vertices_M3).query(joints_J3, k=_NEAREST)[1]
    regressor_JM = np.zeros((len(joints_J3), len(vertices_M3)))
    for joint, near_N in enumerate(near_JN):
        affine_4N = np.concatenate([vertices_M3[near_N].T, np.ones((1, _NEAREST))])
        wanted_4 = np.array((*joints_J3[joint], 1.0))
        regressor_JM[joint, near_N] = np.linalg.lstsq(affine_4N, wanted_4, rcond=None)[0]
    return regressor_JM


def _shapes(parts: Capsules, vertices_M3: Floats, weights_MJ: Floats) -> Floats:
    """Return what a standard deviation of each direction moves [M, 3, 10], metres.

    Stature, girth, girth of the torso, belly, hips, width of the shoulders, length of legs and of arms, girth of limbs,
    size of the head.
    """
    x, y, z = vertices_M3.T
    off_CM3, distance_CM = parts.feet(vertices_M3)
    soft_CM1 = np.exp((distance_CM.min(0) - distance_CM) / _SPREAD_M)[:, :, None]
    out_M3 = (soft_CM1 * off_CM3).sum(0)
    out_M3 /= np.linalg.norm(out_M3, axis=1, keepdims=True) + 1e-6
    torso_M1, arms_M1, legs_M1 = (weights_MJ[:, list(own)].sum(1, keepdims=True) for own in (TORSO, ARMS, LEGS))
    head_M1 = weights_MJ[:, [15]]
    belly_M1 = np.exp(-((x / 0.11) ** 2 + ((y - 1.06) / 0.1) ** 2)[:, None]) * (z > 0)[:, None]
    hips_M1 = np.exp(-(((y - 0.9) / 0.09) ** 2))[:, None]
    upwards_M = np.clip(y / 0.9, 0, 1)
    beside_M = np.clip(np.abs(x) / 0.18, 0, 1) * np.clip((y - 1.0) / 0.3, 0, 1)
    nothing_M = np.zeros_like(x)
    return np.stack(
        [
            vertices_M3 * (0.02, 0.035, 0.02),
            out_M3 * 0.008,
            out_M3 * 0.009 * torso_M1,
            np.array((0, 0, 0.025)) * belly_M1,
            out_M3 * 0.012 * hips_M1 * (torso_M1 + legs_M1),
            np.stack([np.sign(x) * beside_M * 0.012, nothing_M, nothing_M], axis=1),
            np.stack([nothing_M, upwards_M * 0.025, nothing_M], axis=1),
            np.stack([np.sign(x) * np.clip((np.abs(x) - 0.18) / 0.6, 0, 1) * 0.02, nothing_M, nothing_M], axis=1),
            out_M3 * 0.005 * (arms_M1 + legs_M1),
            (vertices_M3 - (0, 1.63, 0.005)) * 0.05 * head_M1,
        ],
        axis=2,
    )
