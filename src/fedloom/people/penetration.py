"""Garments brought out of what they lie over: sparse least squares that keep the cloth's shape.

The target is the Laplacian coordinates; vertices that lie too near or within are pulled to a clearance. The body comes
first, then the lower garment over it, then the upper over both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedloom.base.extras import library
from fedloom.people.meshes import Floats, Ints, Mesh, edges, laplacian
from fedloom.people.nearest import NearestPoints

__all__ = ["Collider", "layered", "relieved"]

_NEAR_M, _CLEARANCE_M = 0.003, 0.005
"""What is nearer than the one is pulled to the other."""
_WEIGHT, _STAY = 2.0, 0.2
_REACH_M = 0.03
"""How far behind an open surface a point still counts as within it."""


@dataclass(frozen=True, eq=False)
class Collider:
    """A surface that others stay out of: a body, or a garment, which has edges and no inside."""

    mesh: Mesh

    @cached_property
    def nearest(self) -> NearestPoints:
        """What tells its nearest points."""
        return NearestPoints(self.mesh)

    @cached_property
    def _at_edge_F(self) -> NDArray[np.bool_]:
        """Which faces touch an edge [F]: beside and beyond these nothing is within."""
        edges_E2, count_E = edges(self.mesh.faces)
        at_edge_M = np.zeros(len(self.mesh.vertices), bool)
        at_edge_M[edges_E2[count_E == 1]] = True
        return np.asarray(at_edge_M[self.mesh.faces].any(1))

    def pulls(self, points_N3: Floats) -> tuple[Ints, Floats]:
        """Return which points [P] lie too near or within, and where they should be [P, 3]."""
        clearance_N, feet = self.nearest.signed(points_N3)
        low_N = clearance_N < _NEAR_M
        if self._at_edge_F.any():
            low_N &= (feet.distance_N < _REACH_M) & ~self._at_edge_F[feet.face_N]
        which = np.flatnonzero(low_N)
        # From the foot to the point, or back where it is within; on the surface itself its face tells.
        way_P3 = (points_N3 - feet.points_N3)[which] * np.sign(clearance_N[which])[:, None]
        corners_P33 = self.mesh.vertices[self.mesh.faces[feet.face_N[which]]]
        normal_P3 = np.cross(corners_P33[:, 1] - corners_P33[:, 0], corners_P33[:, 2] - corners_P33[:, 0])
        way_P3 = np.where(feet.distance_N[which, None] > 1e-5, way_P3, normal_P3)
        way_P3 /= np.maximum(np.linalg.norm(way_P3, axis=1, keepdims=True), 1e-12)
        return which, feet.points_N3[which] + _CLEARANCE_M * way_P3


def _solved(faces_F3: Ints, shape_M3: Floats, which: Ints, targets_P3: Floats) -> Floats:
    """Return the vertices whose Laplacian coordinates are nearest to a shape's while some lie near their targets."""
    sparse, n = library("scipy.sparse", "people"), len(shape_M3)
    uneven = laplacian(faces_F3, n)
    chosen = sparse.csr_matrix((np.ones(len(which)), (np.arange(len(which)), which)), shape=(len(which), n))
    matrix = uneven.T @ uneven + _WEIGHT**2 * (chosen.T @ chosen) + _STAY**2 * sparse.identity(n)
    right_M3 = uneven.T @ (uneven @ shape_M3) + _WEIGHT**2 * (chosen.T @ targets_P3) + _STAY**2 * shape_M3
    return library("scipy.sparse.linalg", "people").splu(matrix.tocsc()).solve(right_M3)


def relieved(garment: Mesh, colliders: Sequence[Collider], solves: int = 3) -> Mesh:
    """Return a garment outside its colliders, after at most `solves` solves; itself where it is outside already.

    A vertex that was pulled once is held in later solves, else it would sink back.
    """
    at_M3, held_M = garment.vertices, np.zeros(len(garment.vertices), bool)
    for _ in range(solves):
        targets_M3, fresh = at_M3.copy(), False
        for collider in colliders:
            which, targets_P3 = collider.pulls(at_M3)
            targets_M3[which], held_M[which], fresh = targets_P3, True, fresh or len(which) > 0
        if not fresh:
            break
        held = np.flatnonzero(held_M)
        at_M3 = _solved(garment.faces, garment.vertices, held, targets_M3[held])
    return garment.moved(at_M3)


def layered(garments: Sequence[Mesh], body: Mesh) -> list[Mesh]:
    """Return garments, the lower first, each outside the body and what was brought out before it."""
    colliders, result = [Collider(body)], list[Mesh]()
    for garment in garments:
        result.append(relieved(garment, colliders))
        colliders.append(Collider(result[-1]))
    return result
