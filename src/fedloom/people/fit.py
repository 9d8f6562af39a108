"""The body under the clothes: shape and pose by what a surface shows of skin, and by what clothes cannot cross.

In the spirit of USR; the terms are those of fits to scans with clothes: skin is near the body, cloth lies outside it
and not far. Two stages are needed: a fit that takes the surface for skin finds the pose; only then may cloth be cloth.
Deviations: all formulas are a design.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedloom.base import rng
from fedloom.base.extras import library
from fedloom.base.plugin import AtLeast, NonNegative, Positive, check_ranges
from fedloom.people.body import Body
from fedloom.people.dressed import a_pose
from fedloom.people.labels import GARMENTS, LOWER, UPPER
from fedloom.people.meshes import Floats, Ints, Mesh, smoothed, vertex_normals
from fedloom.people.skinning import Skin, skin_of

__all__ = ["Fitted", "Fitting", "fitted"]

_SKIN_M, _EASE_M = 0.05, 0.03
_CLIP_M, _FEATHER_M = 0.02, 0.03
_WARM = 20
"""Steps in which the rate grows: a fresh Adam moves all by it, however little that gains, and loses arms."""
_HEAVY = {
    12: 4.0,
    15: 4.0,
    20: 3.0,
    21: 3.0,
    22: 10.0,
    23: 10.0,
    7: 5.0,
    8: 5.0,
    10: 5.0,
    11: 5.0,
    3: 4.0,
    6: 4.0,
    9: 4.0,
    13: 6.0,
    14: 6.0,
}
"""By what the pose of some joints costs more: those that photographs hardly tell."""


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """How a body is fitted."""

    single: AtLeast = 120
    """Steps in which the surface is taken for skin."""
    layered: AtLeast = 130
    """Steps in which clothes are clothes."""
    points: AtLeast = 2000
    """Of the surface, and as many of the body."""
    every: AtLeast = 5
    """Steps between searches for the nearest points."""
    rate: Positive = 0.03
    gap_m: NonNegative = 0.004
    """How far cloth lies outside the body at least."""
    hinge: NonNegative = 20.0
    ease: NonNegative = 0.3
    shape: NonNegative = 0.05
    """What a unit of shape costs, squared, by a thousandth of a square metre."""
    pose: NonNegative = 0.1

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A body in a shape and a pose, under a surface."""

    betas_S: Floats
    pose_J3: Floats
    translation_3: Floats
    ease_m: Floats
    """How far clothes are from the body on the mean, upper and lower."""
    skin_offsets_M3: Floats
    """Where skin is seen, what leads from the body's to it in the rest pose; zeros under clothes."""
    mesh: Mesh
    """The body as it stands, without offsets: nobody is undressed."""


@dataclass(frozen=True, eq=False)
class _Target:
    points_N3: Tensor
    garment_N: Tensor
    """0 where it is skin, hair or shoes; else 1 and 2 for the garments."""
    tree: Any
    """A k-d tree of the points."""


class _Params:
    def __init__(self, skin: Skin) -> None:
        self.betas_S = torch.zeros(skin.shape_directions_M3S.shape[2], requires_grad=True)
        self.rest_J3 = torch.from_numpy(a_pose(len(skin.parents)).astype(np.float32))
        self.turn_J3 = torch.zeros(len(skin.parents), 3, requires_grad=True)
        self.translation_3 = torch.zeros(3, requires_grad=True)
        self.ease_2 = torch.tensor([0.018, 0.014], requires_grad=True)

    @property
    def all(self) -> list[Tensor]:
        return [self.betas_S, self.turn_J3, self.translation_3, self.ease_2]


def fitted(points_N3: Floats, labels_N: Ints, body: Body, settings: Fitting | None = None) -> Fitted:
    """Return the body under points of a surface with their common classes, metres, roughly upright."""
    asked, skin = settings or Fitting(), skin_of(body)
    chosen = rng.numpy_random("fit", "points").permutation(len(points_N3))[: asked.points]
    target = _target(points_N3[chosen], labels_N[chosen])
    some = np.sort(rng.numpy_random("fit", "body").permutation(len(body.template_M3))[: asked.points])
    part, params = _part(skin, some), _Params(skin)
    with torch.no_grad():
        params.translation_3 += _middle(target.points_N3) - _middle(_posed(skin, params))
    normals = _Normals(body, some)
    _steps(part, params, target, normals, asked, layered=False)
    _steps(part, params, target, normals, asked, layered=True)
    return _found(skin, body, params, points_N3, labels_N)


def _middle(points_N3: Tensor) -> Tensor:
    """Return the middle [3] of a person, at half the height: points seen and vertices are not spread alike over it."""
    middle_3 = points_N3.mean(0)
    middle_3[1] = (points_N3[:, 1].amin() + points_N3[:, 1].amax()) / 2
    return middle_3


def _target(points_N3: Floats, labels_N: Ints) -> _Target:
    garment_N = np.zeros(len(labels_N), np.int64)
    garment_N[labels_N == UPPER], garment_N[labels_N == LOWER] = 1, 2
    tree = library("scipy.spatial", "people").cKDTree(points_N3)
    return _Target(torch.from_numpy(points_N3.astype(np.float32)), torch.from_numpy(garment_N), tree)


def _part(skin: Skin, some: Ints) -> Skin:
    """Return the skin of some vertices; joints are those of the whole."""
    at = torch.from_numpy(some)
    pose = None if skin.pose_directions_M3P is None else skin.pose_directions_M3P[at]
    own = Skin(
        skin.template_M3[at], skin.shape_directions_M3S[at], pose, skin.regressor_JM, skin.weights_MJ[at], skin.parents
    )
    rest_J3 = skin.regressor_JM @ skin.template_M3
    moves_J3S = torch.einsum("jm,mds->jds", skin.regressor_JM, skin.shape_directions_M3S)
    return _OfJoints(**vars(own), rest_J3=rest_J3, moves_J3S=moves_J3S)


@dataclass(frozen=True, eq=False)
class _OfJoints(Skin):
    rest_J3: Tensor
    moves_J3S: Tensor

    def joints(self, betas_S: Tensor) -> Tensor:
        return self.rest_J3 + self.moves_J3S @ betas_S


def _posed(skin: Skin, params: _Params) -> Tensor:
    return skin.posed(params.betas_S, params.rest_J3 + params.turn_J3, params.translation_3).vertices_M3


class _Normals:
    """The body's normals at some vertices, of the whole body as it stands."""

    def __init__(self, body: Body, some: Ints) -> None:
        self.rest_N3 = vertex_normals(Mesh(body.template_M3, body.faces_F3))[some].astype(np.float32)

    def __call__(self, transforms_N44: Tensor) -> Tensor:
        turned_N3 = (transforms_N44[:, :3, :3] @ torch.from_numpy(self.rest_N3)[:, :, None])[:, :, 0]
        return turned_N3 / turned_N3.norm(dim=1, keepdim=True)


def _robust(squared: Tensor, reach_m: float) -> Tensor:
    """Return Geman and McClure's r^2 e^2 / (r^2 + e^2) of squared distances, square metres."""
    return reach_m**2 * squared / (reach_m**2 + squared)


def _steps(part: Skin, params: _Params, target: _Target, normals: _Normals, asked: Fitting, *, layered: bool) -> None:
    count = asked.layered if layered else asked.single
    adam = torch.optim.Adam(
        [{"params": params.all[:3], "lr": asked.rate}, {"params": params.all[3:], "lr": asked.rate / 30}]
    )
    trees = library("scipy.spatial", "people").cKDTree
    nearest_N, back_N = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    for step in range(count):
        for group, rate in zip(adam.param_groups, (asked.rate, asked.rate / 30), strict=True):
            group["lr"] = rate * min(1.0, (step + 1) / _WARM) * (1 - 0.9 * step / count)
        posed = part.posed(params.betas_S, params.rest_J3 + params.turn_J3, params.translation_3)
        if step % asked.every == 0:
            now_N3 = posed.vertices_M3.detach().numpy()
            nearest_N = torch.from_numpy(trees(now_N3).query(target.points_N3.numpy())[1])
            back_N = torch.from_numpy(target.tree.query(now_N3)[1])
        away_N3 = target.points_N3 - posed.vertices_M3[nearest_N]
        back_M2 = ((posed.vertices_M3 - target.points_N3[back_N]) ** 2).sum(1)
        squared_N = (away_N3**2).sum(1)
        if layered:
            clear_N = (away_N3 * normals(posed.transforms_M44.detach())[nearest_N]).sum(1)
            loss = _layered(squared_N, clear_N, back_M2, back_N, target, params, asked)
        else:
            loss = _robust(squared_N, _SKIN_M).mean() + _robust(back_M2, _SKIN_M).mean()
        loss = 1000 * loss + asked.shape * (params.betas_S**2).mean() + asked.pose * _pose_cost(params.turn_J3)
        adam.zero_grad()
        loss.backward()
        adam.step()


def _layered(
    squared_N: Tensor,
    clear_N: Tensor,
    back_M2: Tensor,
    back_N: Tensor,
    target: _Target,
    params: _Params,
    asked: Fitting,
) -> Tensor:
    skin_N = target.garment_N == 0
    cloth_N, ease_N = ~skin_N, params.ease_2[(target.garment_N - 1).clamp(min=0)]
    bare_M = target.garment_N[back_N] == 0
    hidden_N = asked.hinge * (asked.gap_m - clear_N).clamp(min=0) ** 2 + asked.ease * _robust(
        (clear_N - ease_N) ** 2, _EASE_M
    )
    return (_robust(squared_N, _SKIN_M) * skin_N + hidden_N * cloth_N).mean() + (
        _robust(back_M2, _SKIN_M) * bare_M
    ).mean()


def _pose_cost(turn_J3: Tensor) -> Tensor:
    weight_J1 = torch.ones(len(turn_J3), 1)
    for joint, heavy in _HEAVY.items():
        if joint < len(turn_J3):
            weight_J1[joint] = heavy
    return (weight_J1[1:] * turn_J3[1:] ** 2).mean()


def _found(skin: Skin, body: Body, params: _Params, points_N3: Floats, labels_N: Ints) -> Fitted:
    with torch.no_grad():
        pose_J3 = params.rest_J3 + params.turn_J3
        posed = skin.posed(params.betas_S, pose_J3, params.translation_3)
        vertices_M3 = posed.vertices_M3.numpy().astype(np.float64)
        turns_M33 = posed.transforms_M44[:, :3, :3].numpy().astype(np.float64)
    mesh = Mesh(vertices_M3, body.faces_F3)
    return Fitted(
        params.betas_S.detach().numpy().astype(np.float64),
        pose_J3.numpy().astype(np.float64),
        params.translation_3.detach().numpy().astype(np.float64),
        params.ease_2.detach().numpy().astype(np.float64),
        _stitched(mesh, turns_M33, points_N3, labels_N),
        mesh,
    )


def _stitched(mesh: Mesh, turns_M33: Floats, points_N3: Floats, labels_N: Ints) -> Floats:
    """Return offsets to the skin that is seen: 2 cm at most, smooth, and fading out 3 cm before clothes begin."""
    trees = library("scipy.spatial", "people").cKDTree
    away_M, near_M = trees(points_N3).query(mesh.vertices)
    bare_M = ~np.isin(labels_N[near_M], GARMENTS)
    cloth_N3 = points_N3[np.isin(labels_N, GARMENTS)]
    fade_M = bare_M.astype(float)
    if len(cloth_N3):
        fade_M *= (trees(cloth_N3).query(mesh.vertices)[0] / _FEATHER_M).clip(0, 1)
    offset_M3 = (points_N3[near_M] - mesh.vertices) * (away_M < 2 * _CLIP_M)[:, None]
    length_M1 = np.linalg.norm(offset_M3, axis=1, keepdims=True)
    offset_M3 *= np.minimum(1, _CLIP_M / np.maximum(length_M1, 1e-9)) * fade_M[:, None]
    offset_M3 = smoothed(mesh.faces, offset_M3, 10)
    return np.linalg.solve(turns_M33, (offset_M3 * fade_M[:, None])[:, :, None])[:, :, 0]
