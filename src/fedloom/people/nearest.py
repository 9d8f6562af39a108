"""The nearest point of a surface: exact on the triangles that lie about the nearest of many points on it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fedloom.base.errors import DataError
from fedloom.base.extras import library
from fedloom.base.rng import numpy_random
from fedloom.people.meshes import Floats, Ints, Mesh, areas, vertex_normals

__all__ = ["Feet", "NearestPoints", "draw_points", "triangle_feet"]

_CANDIDATES = 8


def draw_points(mesh: Mesh, n_points: int, *names: str | int) -> tuple[Floats, Ints]:
    """Return points [N, 3] drawn evenly from a surface and the faces [N] they lie in; the names are the draw's seed.

    Raises DataError for a mesh without area.
    """
    area_F = areas(mesh)
    if not len(area_F) or area_F.sum() <= 0:
        raise DataError(f"surface: found {len(area_F)} faces without area, allowed is a surface; is the mesh empty?")
    random = numpy_random("surface", *names)
    # One draw in each of N equal pieces of the area: a lower variance than N free draws, and as even.
    steps_N = (np.arange(n_points) + random.random(n_points)) / n_points
    total_F = np.cumsum(area_F)
    face_N = np.searchsorted(total_F, steps_N * total_F[-1]).clip(0, len(area_F) - 1)
    root_N, along_N = np.sqrt(random.random(n_points)), random.random(n_points)
    weights_N3 = np.stack([1 - root_N, root_N * (1 - along_N), root_N * along_N], axis=1)
    return np.einsum("nc,ncd->nd", weights_N3, mesh.vertices[mesh.faces[face_N]]), face_N


def triangle_feet(points_N3: Floats, corners_N33: Floats) -> Floats:
    """Return the point [N, 3] of each triangle (corner, axis) that is nearest to its point."""
    ends_N33 = np.roll(corners_N33, -1, axis=1)
    side_N33 = ends_N33 - corners_N33
    from_N33 = points_N3[:, None] - corners_N33
    length_N3 = np.einsum("nsd,nsd->ns", side_N33, side_N33)
    along_N3 = (np.einsum("nsd,nsd->ns", from_N33, side_N33) / np.where(length_N3 == 0, 1, length_N3)).clip(0, 1)
    feet_N33 = corners_N33 + along_N3[..., None] * side_N33
    away_N3 = np.einsum("nsd,nsd->ns", points_N3[:, None] - feet_N33, points_N3[:, None] - feet_N33)
    best_N3 = feet_N33[np.arange(len(points_N3)), away_N3.argmin(1)]
    normal_N3 = np.cross(side_N33[:, 0], side_N33[:, 1])
    square_N = np.einsum("nd,nd->n", normal_N3, normal_N3)
    sides_N3 = np.einsum(
        "nsd,nsd->ns", np.cross(side_N33, from_N33), np.broadcast_to(normal_N3[:, None], side_N33.shape)
    )
    over_N = (sides_N3 >= 0).all(1) & (square_N > 0)
    height_N = np.einsum("nd,nd->n", from_N33[:, 0], normal_N3) / np.where(square_N == 0, 1, square_N)
    return np.where(over_N[:, None], points_N3 - height_N[:, None] * normal_N3, best_N3)


@dataclass(frozen=True, eq=False)
class Feet:
    """The nearest points of a surface to N points."""

    points_N3: Floats
    distance_N: Floats
    """Metres, unsigned."""
    face_N: Ints


@dataclass(frozen=True, eq=False)
class NearestPoints:
    """A surface that answers which of its points is nearest.

    The triangles about the 8 nearest of points spread over the surface are compared exactly. That is the nearest point
    where few triangles are about as near; elsewhere, at corners and far from the surface, the distance may be too long
    by about the square of the points' spacing over twice the distance: hundredths of a millimetre.
    """

    mesh: Mesh
    spread: int = 40_000
    """How many points are spread over it, beside the middles of its faces."""

    @cached_property
    def _face_of_spread(self) -> Ints:
        return np.concatenate([draw_points(self.mesh, self.spread, "spread")[1], np.arange(len(self.mesh.faces))])

    @cached_property
    def _tree(self) -> Any:
        points_N3, _ = draw_points(self.mesh, self.spread, "spread")
        middles_F3 = self.mesh.vertices[self.mesh.faces].mean(1)
        return library("scipy.spatial", "people").cKDTree(np.concatenate([points_N3, middles_F3]))

    def __call__(self, points_N3: Floats) -> Feet:
        """Return the nearest points of the surface to points [N, 3]."""
        near_NC = self._tree.query(points_N3, k=_CANDIDATES)[1]
        near_NC = np.minimum(near_NC, len(self._face_of_spread) - 1)  # fewer points than candidates: scipy counts past
        face_NC = self._face_of_spread[near_NC]
        best_N, foot_N3, face_N = np.full(len(points_N3), np.inf), np.zeros_like(points_N3), face_NC[:, 0].copy()
        for candidate in range(_CANDIDATES):
            again_N = (face_NC[:, :candidate] == face_NC[:, candidate : candidate + 1]).any(1)
            rows = np.flatnonzero(~again_N)
            feet_R3 = triangle_feet(points_N3[rows], self.mesh.vertices[self.mesh.faces[face_NC[rows, candidate]]])
            away_R = np.linalg.norm(points_N3[rows] - feet_R3, axis=1)
            nearer_R = away_R < best_N[rows]
            chosen = rows[nearer_R]
            best_N[chosen], foot_N3[chosen] = away_R[nearer_R], feet_R3[nearer_R]
            face_N[chosen] = face_NC[chosen, candidate]
        return Feet(foot_N3, best_N, face_N)

    def carried(self, feet: Feet, values_MX: Floats) -> Floats:
        """Return values of the vertices, as colours or normals, at nearest points [N, X]."""
        corners_N33 = self.mesh.vertices[self.mesh.faces[feet.face_N]]
        to_N33 = corners_N33 - feet.points_N3[:, None]
        opposite_N33 = np.cross(np.roll(to_N33, -1, axis=1), np.roll(to_N33, -2, axis=1))
        area_N3 = np.linalg.norm(opposite_N33, axis=2)
        total_N1 = area_N3.sum(1, keepdims=True)
        weights_N3 = np.where(total_N1 > 0, area_N3 / np.where(total_N1 == 0, 1, total_N1), 1 / 3)
        return np.einsum("nc,ncx->nx", weights_N3, values_MX[self.mesh.faces[feet.face_N]])

    def signed(self, points_N3: Floats) -> tuple[Floats, Feet]:
        """Return distances [N] in metres, negative behind the surface, and the nearest points.

        The side is that of the vertices' mean normals at the foot: at an edge its faces may contradict each other.
        """
        feet = self(points_N3)
        normals_N3 = self.carried(feet, vertex_normals(self.mesh))
        behind_N = np.einsum("nd,nd->n", points_N3 - feet.points_N3, normals_N3) < 0
        return np.where(behind_N, -feet.distance_N, feet.distance_N), feet
