"""Garments of a topology of their own, as a skirt or an open coat: bound to the body in rest and worn by another.

Each vertex keeps the nearest triangle of the body in rest, its place on it and its offset in the triangle's frame.
"""

from dataclasses import dataclass

import numpy as np

from fedloom.base.extras import library
from fedloom.people.body import Body
from fedloom.people.meshes import Floats, Ints, Mesh, face_normals, smoothed
from fedloom.people.nearest import NearestPoints
from fedloom.people.stance import Stance, shaped, stood

__all__ = ["Binding", "bound", "draped"]

_NEAR, _ROUNDS = 8, 40


@dataclass(frozen=True, eq=False)
class Binding:
    """A garment bound to a body."""

    rest: Mesh
    """The garment in rest, on the shape of the person that it comes from."""
    face_M: Ints
    """The body's triangle of each of its vertices."""
    places_M3: Floats
    """Barycentric, of the vertex's foot on that triangle."""
    offsets_M3: Floats
    """From the foot, in the triangle's frame."""
    weights_MJ: Floats
    """Skinning weights, smoothed over the garment."""


def _weights(garment: Mesh, posed_M3: Floats, weights_MJ: Floats) -> Floats:
    """Return the weights of the body's nearest vertices, means by distance, smoothed along the garment."""
    away_NC, near_NC = library("scipy.spatial", "people").cKDTree(posed_M3).query(garment.vertices, k=_NEAR)
    soft_NC = 1 / (away_NC + 0.005)
    soft_NC /= soft_NC.sum(1, keepdims=True)
    return smoothed(garment.faces, np.einsum("nc,ncj->nj", soft_NC, weights_MJ[near_NC]), _ROUNDS)


def _frames(body_rest: Mesh, face_M: Ints) -> Floats:
    """Return a rotation of each triangle [M, 3, 3]: its columns are its first side, across it, and its normal."""
    corners_M33 = body_rest.vertices[body_rest.faces[face_M]]
    side_M3 = corners_M33[:, 1] - corners_M33[:, 0]
    side_M3 /= np.linalg.norm(side_M3, axis=1, keepdims=True)
    normal_M3 = face_normals(Mesh(body_rest.vertices, body_rest.faces[face_M]))
    return np.stack([side_M3, np.cross(normal_M3, side_M3), normal_M3], axis=2)


def _feet(body_rest: Mesh, face_M: Ints, places_M3: Floats) -> Floats:
    return np.einsum("mc,mcd->md", places_M3, body_rest.vertices[body_rest.faces[face_M]])


def bound(garment: Mesh, body: Body, by: Stance) -> Binding:
    """Return a garment, posed on a person, bound to the body (route R2): inverse skinning, then nearest triangles."""
    posed = stood(body, by)
    weights_MJ = _weights(garment, posed.mesh.vertices, body.weights_MJ)
    carried_M44 = posed.by(weights_MJ)
    away_M3 = garment.vertices - carried_M44[:, :3, 3]
    rest = garment.moved(np.linalg.solve(carried_M44[:, :3, :3], away_M3[:, :, None])[:, :, 0])
    body_rest = shaped(body, by.betas_S)
    feet = NearestPoints(body_rest)(rest.vertices)
    corners_M33 = body_rest.vertices[body_rest.faces[feet.face_N]]
    # Barycentrics by the plane's two sides: feet lie on their triangles, so that a solve in the plane is exact.
    sides_M32 = np.stack([corners_M33[:, 1] - corners_M33[:, 0], corners_M33[:, 2] - corners_M33[:, 0]], axis=2)
    both_M2 = (np.linalg.pinv(sides_M32) @ (feet.points_N3 - corners_M33[:, 0])[:, :, None])[:, :, 0]
    places_M3 = np.concatenate([1 - both_M2.sum(1, keepdims=True), both_M2], axis=1)
    away_M3 = rest.vertices - _feet(body_rest, feet.face_N, places_M3)
    offsets_M3 = np.einsum("mab,ma->mb", _frames(body_rest, feet.face_N), away_M3)
    return Binding(rest, feet.face_N, places_M3, offsets_M3, weights_MJ)


def draped(binding: Binding, body: Body, by: Stance) -> Mesh:
    """Return a bound garment on another person; `penetration` brings it out of them.

    How the body's change of shape moves the garment is smoothed along it: neighbours far off the body may be bound to
    triangles that turn differently.
    """
    body_rest = shaped(body, by.betas_S)
    turned_M3 = np.einsum("mab,mb->ma", _frames(body_rest, binding.face_M), binding.offsets_M3)
    moved_M3 = _feet(body_rest, binding.face_M, binding.places_M3) + turned_M3 - binding.rest.vertices
    rest_M3 = binding.rest.vertices + smoothed(binding.rest.faces, moved_M3, _ROUNDS)
    return binding.rest.moved(stood(body, by).carried(rest_M3, binding.weights_MJ))
