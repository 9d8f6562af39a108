"""How far a rebuilt surface lies from the true one: both directions by name, beside the floor of the sampling.

`acc_cm` goes from the reconstruction to the truth, `comp_cm` from the truth to the reconstruction; well-known
evaluators give either direction the same name, so neither is printed without saying which.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError
from fedloom.base.extras import library
from fedloom.people.meshes import Floats, Ints, Mesh, face_normals, part
from fedloom.people.nearest import NearestPoints, draw_points

__all__ = ["SurfaceErrors", "surface_errors"]

_FEWEST = 80_000
"""Points of a surface: between fewer, the distance of two draws from one surface is no longer small."""


@dataclass(frozen=True)
class SurfaceErrors:
    """Distances of two surfaces, over the part of the truth that a camera sees."""

    acc_cm: float
    """Mean distance from the reconstruction to the truth."""
    comp_cm: float
    """Mean distance from the truth to the reconstruction."""
    fscore: float
    """Harmonic mean of the shares within 1 cm, in both directions."""
    floor_cm: float
    """What the truth is from itself, measured in the same way: 0 where distances to triangles are exact."""
    normal_consistency: float
    """Mean cosine between normals of nearest points, of both directions."""

    @property
    def chamfer_cm(self) -> float:
        """Mean of both directions."""
        return (self.acc_cm + self.comp_cm) / 2


def surface_errors(
    rebuilt: Mesh,
    truth: Mesh,
    *,
    visible_F: NDArray[np.bool_] | None = None,
    n_points: int = 20_000,
    exact: bool = True,
    within_m: float = 0.01,
    seed: int = 0,
) -> SurfaceErrors:
    """Return the errors of a rebuilt surface, from `n_points` of either.

    `visible_F` marks faces of the truth that a camera sees; soles and armpits would dominate otherwise. In either
    direction a pair counts if its point on the truth is visible: what nobody saw is neither asked for nor charged.
    Distances go to triangles (`exact`) or to points alone, of which there must be 80,000. DataError for a wrong mask.
    """
    if n_points < _FEWEST and not exact:
        raise DataError(
            f"surface errors: found {n_points} points, allowed are {_FEWEST} or more: fewer have a high floor."
        )
    seen_F = np.ones(len(truth.faces), bool) if visible_F is None else visible_F
    if seen_F.shape != (len(truth.faces),) or not seen_F.any():
        raise DataError(
            f"surface errors: found a mask of {seen_F.shape} with {int(seen_F.sum())} faces visible, allowed is one of "
            f"({len(truth.faces)},) with at least one; is it another mesh's?"
        )
    visible, _ = part(truth, truth.faces[seen_F])
    ours, true = draw_points(rebuilt, n_points, seed, "rebuilt"), draw_points(visible, n_points, seed, "truth")
    to_truth = _pairs(ours, rebuilt, truth, exact, seed)
    seen_N = seen_F[to_truth.face_N]
    if not seen_N.any():
        raise DataError(
            "surface errors: found no point of the reconstruction near a visible face; are its units metres?"
        )
    acc_N, acc_cosine_N = to_truth.distance_N[seen_N], to_truth.cosine_N[seen_N]
    to_ours, to_self = _pairs(true, visible, rebuilt, exact, seed), _pairs(true, visible, visible, exact, seed)
    precision, recall = float((acc_N < within_m).mean()), float((to_ours.distance_N < within_m).mean())
    return SurfaceErrors(
        acc_cm=float(acc_N.mean()) * 100,
        comp_cm=float(to_ours.distance_N.mean()) * 100,
        fscore=2 * precision * recall / max(precision + recall, 1e-12),
        floor_cm=float(to_self.distance_N.mean()) * 100,
        normal_consistency=float(acc_cosine_N.mean() + to_ours.cosine_N.mean()) / 2,
    )


@dataclass(frozen=True, eq=False)
class _Pairs:
    distance_N: Floats
    cosine_N: Floats
    face_N: Ints


def _pairs(drawn: tuple[Floats, Ints], of: Mesh, to: Mesh, exact: bool, seed: int) -> _Pairs:
    points_N3, own_N = drawn
    if exact:
        feet = NearestPoints(to)(points_N3)
        distance_N, face_N = feet.distance_N, feet.face_N
    else:
        others_N3, other_N = draw_points(to, len(points_N3), seed, "other")
        distance_N, near_N = library("scipy.spatial", "people").cKDTree(others_N3).query(points_N3)
        face_N = other_N[near_N]
    cosine_N = np.einsum("nd,nd->n", face_normals(of)[own_N], face_normals(to)[face_N])
    return _Pairs(distance_N, cosine_N, face_N)
