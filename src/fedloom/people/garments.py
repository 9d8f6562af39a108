"""Garments made on a body, with all that a reconstruction is measured by: meshes, offsets, classes, seams.

In the rest pose a garment of the body's topology is a part of its skin, moved outwards along the normals, and at its
edges along the skin to where they are drawn; skirts and the lower half of a dress are tubes of their own.
"""

from dataclasses import dataclass, replace

import numpy as np

from fedloom.base.errors import ConfigError
from fedloom.base.extras import library
from fedloom.people.body import Body
from fedloom.people.labels import LOWER, UPPER
from fedloom.people.meshes import Floats, Ints, Mesh, boundary_loops, joined, part, vertex_normals

__all__ = ["BOTTOMS", "TOPS", "Garment", "garment"]

_BASE_M = {UPPER: (0.018, 0.026), LOWER: (0.010, 0.014)}
_WRINKLE_M, _FLARE_M = 0.004, 0.03
_NECK = np.array((0.0, 1.52, 0.0))
_AROUND, _ROW_M, _WAIST_M = 72, 0.02, 1.02
TOPS = ("tee", "long_sleeve", "dress")
BOTTOMS = ("trousers", "shorts", "skirt")


@dataclass(frozen=True, eq=False)
class Garment:
    """A garment in the rest pose of the mean shape."""

    kind: str
    label: int
    rest: Mesh
    weights_NJ: Floats
    """By which joints carry it."""
    shapes_N3S: Floats
    """What directions of shape move it."""
    on_body_N: Ints
    """The vertex of the body that each stands over; -1 of a tube."""
    offsets_N3: Floats
    """From that vertex to its own, in the rest pose; zeros of a tube."""
    loops: tuple[Ints, ...]
    """Its edges."""


@dataclass(frozen=True)
class _Cut:
    """Where a garment ends: it is worn where this is positive, metres."""

    hem_y: float
    top_y: float
    sleeve_x: float = 9.0
    neck_m: float = 0.0

    def __call__(self, points_N3: Floats) -> Floats:
        x, y = np.abs(points_N3[:, 0]), points_N3[:, 1]
        # Over the hands, which hang at no height in the rest pose, a garment of the legs is not.
        ends = [y - self.hem_y, self.top_y - y, self.sleeve_x - x]
        if self.neck_m:
            ends.append(np.linalg.norm((points_N3 - _NECK) * (1, 1, 0.9), axis=1) - self.neck_m)
        return np.min(ends, axis=0)


def _cut_of(kind: str, rng: np.random.Generator) -> _Cut:
    """Return where a garment of a kind ends, drawn between what such garments do."""

    def draw(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    neck = draw(0.095, 0.115)
    cuts = {
        "tee": lambda: _Cut(draw(0.88, 0.93), 1.60, draw(0.30, 0.40), neck),
        "long_sleeve": lambda: _Cut(draw(0.87, 0.92), 1.60, draw(0.62, 0.67), neck),
        "dress": lambda: _Cut(_WAIST_M - 0.02, 1.60, draw(0.22, 0.34), neck),
        "trousers": lambda: _Cut(draw(0.11, 0.16), draw(0.97, 1.02)),
        "shorts": lambda: _Cut(draw(0.50, 0.62), draw(0.97, 1.02)),
    }
    return cuts[kind]()


def garment(body: Body, kind: str, rng: np.random.Generator) -> Garment:
    """Return a garment of that kind, its length, width and wrinkles drawn; ConfigError for a kind that there is not."""
    if kind not in {*TOPS, *BOTTOMS}:
        raise ConfigError(f"garments: found '{kind}', allowed are {', '.join(dict.fromkeys((*TOPS, *BOTTOMS)))}.")
    label = UPPER if kind in TOPS else LOWER
    if kind == "skirt":
        return _tube(body, kind, label, rng, hem_y=float(rng.uniform(0.42, 0.6)))
    worn = _on_skin(body, kind, label, rng)
    if kind != "dress":
        return worn
    return _both(worn, _tube(body, kind, label, rng, hem_y=float(rng.uniform(0.4, 0.6))))


def _on_skin(body: Body, kind: str, label: int, rng: np.random.Generator) -> Garment:
    cut = _cut_of(kind, rng)
    inside_M = cut(body.template_M3) > 0
    inside_M &= body.weights_MJ[:, [12, 15]].sum(1) < 0.5
    cloth, own_N = part(Mesh(body.template_M3, body.faces_F3), body.faces_F3[inside_M[body.faces_F3].all(1)])
    normals_N3 = vertex_normals(Mesh(body.template_M3, body.faces_F3))[own_N]
    points_N3 = cloth.vertices
    width_N = rng.uniform(*_BASE_M[label]) + _wrinkles(points_N3, rng)
    flare = float(rng.uniform(0, _FLARE_M)) * (0.4 if kind == "trousers" else 1.0)
    width_N = width_N + flare * np.clip((cut.hem_y + 0.25 - points_N3[:, 1]) / 0.25, 0, 1) ** 2
    drawn_N3 = points_N3 + _to_edge(cut, cloth, points_N3) + normals_N3 * width_N[:, None]
    rest = Mesh(drawn_N3, cloth.faces, labels=np.full(len(drawn_N3), label))
    return Garment(
        kind,
        label,
        rest,
        body.weights_MJ[own_N],
        body.shape_directions_M3S[own_N],
        own_N,
        drawn_N3 - points_N3,
        tuple(boundary_loops(cloth.faces)),
    )


def _wrinkles(points_N3: Floats, rng: np.random.Generator) -> Floats:
    """Return folds [N]: three waves of a few centimetres, 4 mm high at most."""
    waves_33, phase_3 = rng.normal(0, 45, (3, 3)), rng.uniform(0, 2 * np.pi, 3)
    return _WRINKLE_M * np.sin(points_N3 @ waves_33 + phase_3).mean(1)


def _to_edge(cut: _Cut, cloth: Mesh, points_N3: Floats) -> Floats:
    """Return what moves the vertices of an edge to where it is drawn, and nothing the others: edges have no steps."""
    moved_N3, step = np.zeros_like(points_N3), 1e-4
    edge = np.unique(np.concatenate(boundary_loops(cloth.faces)))
    at = points_N3[edge]
    for _ in range(2):
        slope = np.stack([(cut(at + step * way) - cut(at - step * way)) / (2 * step) for way in np.eye(3)], axis=1)
        off = -cut(at)[:, None] * slope / ((slope**2).sum(1, keepdims=True) + 1e-6)
        at = at + off
    moved_N3[edge] = np.clip(at - points_N3[edge], -0.017, 0.017)
    return moved_N3


def _tube(body: Body, kind: str, label: int, rng: np.random.Generator, *, hem_y: float) -> Garment:
    """Return a tube from the waist to a hem: as wide as the body above each height, with ease, folds and flare."""
    heights_R = np.arange(_WAIST_M, hem_y, -_ROW_M)
    angles_A = np.linspace(0, 2 * np.pi, _AROUND, endpoint=False)
    legs_M = (np.abs(body.template_M3[:, 0]) < 0.3) & (body.template_M3[:, 1] < _WAIST_M + 0.04)
    reach_RA = _reach(body.template_M3[legs_M], heights_R, angles_A)
    ease = rng.uniform(*_BASE_M[label])
    flare, folds = float(rng.uniform(0.02, 0.09)), int(rng.integers(5, 9))
    down_R1 = ((_WAIST_M - heights_R) / 0.5)[:, None]
    wave_RA = np.sin(folds * angles_A + rng.uniform(0, 6))[None] * 0.012 * down_R1
    radius_RA = np.maximum.accumulate(reach_RA, axis=0) + ease + flare * down_R1**1.5 + wave_RA
    ring = np.stack([np.sin(angles_A), np.zeros(_AROUND), np.cos(angles_A)], axis=1)
    points = (
        radius_RA[:, :, None] * ring + np.stack([np.zeros_like(heights_R), heights_R, 0 * heights_R], axis=1)[:, None]
    )
    points_N3 = points.reshape(-1, 3)
    faces = _strip(len(heights_R), _AROUND)
    return Garment(
        kind,
        label,
        Mesh(points_N3, faces, labels=np.full(len(points_N3), label)),
        _tube_weights(points_N3, body.n_joints),
        _nearest_shapes(body, points_N3),
        np.full(len(points_N3), -1),
        np.zeros_like(points_N3),
        tuple(boundary_loops(faces)),
    )


def _reach(points_N3: Floats, heights_R: Floats, angles_A: Floats) -> Floats:
    """Return how far the body reaches in each direction at each height [R, A]: its support, which spans legs."""
    ways_2A = np.stack([np.sin(angles_A), np.cos(angles_A)])
    rows = [points_N3[np.abs(points_N3[:, 1] - height) < 0.025][:, [0, 2]] @ ways_2A for height in heights_R]
    return np.stack([row.max(0) for row in rows])


def _strip(rows: int, around: int) -> Ints:
    row, at = np.meshgrid(np.arange(rows - 1), np.arange(around), indexing="ij")
    here, there = (row * around + at).ravel(), (row * around + (at + 1) % around).ravel()
    below, beyond = here + around, there + around
    return np.concatenate([np.stack([here, below, there], 1), np.stack([there, below, beyond], 1)])


def _tube_weights(points_N3: Floats, n_joints: int) -> Floats:
    """Return weights blended from the pelvis at the waist to both thighs below."""
    weights_NJ = np.zeros((len(points_N3), n_joints))
    legs_N = np.clip((_WAIST_M - 0.1 - points_N3[:, 1]) / 0.35, 0, 0.7)
    left_N = 1 / (1 + np.exp(-points_N3[:, 0] / 0.04))
    weights_NJ[:, 0], weights_NJ[:, 1], weights_NJ[:, 2] = 1 - legs_N, legs_N * left_N, legs_N * (1 - left_N)
    return weights_NJ


def _nearest_shapes(body: Body, points_N3: Floats) -> Floats:
    near_N = library("scipy.spatial", "people").cKDTree(body.template_M3).query(points_N3, k=12)[1]
    return body.shape_directions_M3S[near_N].mean(1)


def _both(upper: Garment, lower: Garment) -> Garment:
    """Return two pieces as one garment."""
    shift = len(upper.rest.vertices)
    return replace(
        upper,
        rest=joined(upper.rest, lower.rest),
        weights_NJ=np.concatenate([upper.weights_NJ, lower.weights_NJ]),
        shapes_N3S=np.concatenate([upper.shapes_N3S, lower.shapes_N3S]),
        on_body_N=np.concatenate([upper.on_body_N, lower.on_body_N]),
        offsets_N3=np.concatenate([upper.offsets_N3, lower.offsets_N3]),
        loops=(*upper.loops, *(loop + shift for loop in lower.loops)),
    )
