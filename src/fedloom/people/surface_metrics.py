"""How far a rebuilt surface lies from the true one: both directions by name, beside the floor of the sampling.

`acc_cm` goes from the reconstruction to the truth, `comp_cm` from the truth to the reconstruction; well-known
evaluators give either direction the same name, so neither is printed without saying which.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError
from fedloom.people.meshes import Floats, Ints, Mesh, face_normals, part
from fedloom.people.nearest import NearestPoints, draw_points

__all__ = ["SurfaceErrors", "surface_errors"]

_FLOOR_POINTS = 2_000
"""By which the floor is told: it is the measure's own error, and that of few points is that of many."""


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
    """What the truth is from itself, measured in the same way: next to 0, as distances go to triangles."""
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
    within_m: float = 0.01,
    seed: int = 0,
) -> SurfaceErrors:
    """Return the errors of a rebuilt surface, from `n_points` of either.

    `visible_F` marks faces of the truth that a camera sees; soles and armpits would dominate otherwise. In either
    direction a pair counts if its point on the truth is visible: what nobody saw is neither asked for nor charged.
    Distances go to triangles: between points alone, 20,000 of them, a surface is 0.5 cm from itself. DataError for a
    wrong mask.
    """
    seen_F = np.ones(len(truth.faces), bool) if visible_F is None else visible_F
    if seen_F.shape != (len(truth.faces),) or not seen_F.any():
        raise DataError(
            f"surface errors: found a mask of {seen_F.shape} with {int(seen_F.sum())} faces visible, allowed is one of "
            f"({len(truth.faces)},) with at least one; is it another mesh's?"
        )
    visible, _ = part(truth, truth.faces[seen_F])
    ours, true = draw_points(rebuilt, n_points, seed, "rebuilt"), draw_points(visible, n_points, seed, "truth")
    to_truth, to_ours = _pairs(ours, rebuilt, truth), _pairs(true, visible, rebuilt)
    to_self = _pairs(draw_points(visible, _FLOOR_POINTS, seed, "floor"), visible, visible)
    seen_N = seen_F[to_truth.face_N]
    if not seen_N.any():
        raise DataError(
            "surface errors: found no point of the reconstruction near a visible face; are its units metres?"
        )
    acc_N, acc_cosine_N = to_truth.distance_N[seen_N], to_truth.cosine_N[seen_N]
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


def _pairs(drawn: tuple[Floats, Ints], of: Mesh, to: Mesh) -> _Pairs:
    points_N3, own_N = drawn
    feet = NearestPoints(to)(points_N3)
    cosine_N = np.einsum("nd,nd->n", face_normals(of)[own_N], face_normals(to)[feet.face_N])
    return _Pairs(feet.distance_N, cosine_N, feet.face_N)
