"""A layer cut out of a surface: triangles are split where its class begins, so that an edge is no staircase.

A layer is an open surface with loops at its ends, edge-manifold where the surface is, and never watertight.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom.people.meshes import Floats, Ints, Mesh, areas, boundary_loops, components, part, vertex_areas

__all__ = ["Layer", "cut_layer", "margins", "without_specks"]

_LEAST_SHARE = 0.08
"""How near to a corner an edge may be cut: nearer, faces without area would appear."""
_SPECK_M2, _LEAST_M2, _MOST_PARTS = 0.004, 0.03, 2


@dataclass(frozen=True, eq=False)
class Layer:
    """A part of a surface with edges of its own."""

    mesh: Mesh
    corners_N2: Ints
    """Between which vertices of the surface each of its own lies; twice the same where it is one of them."""
    shares_N: Floats
    """How far from the first of them to the second."""

    @property
    def loops(self) -> list[Ints]:
        """Its edges, longest first."""
        return boundary_loops(self.mesh.faces)

    def carried(self, values_MX: Floats) -> Floats:
        """Return values of the surface's vertices at the layer's own [N, X]."""
        first, second = values_MX[self.corners_N2[:, 0]], values_MX[self.corners_N2[:, 1]]
        share = self.shares_N.reshape(-1, *[1] * (values_MX.ndim - 1))
        return (1 - share) * first + share * second


def margins(log_odds_MK: Floats, k: int) -> Floats:
    """Return by how much class k leads [M], or is behind: its log-odds less the best of the others."""
    others = np.delete(log_odds_MK, k, axis=1).max(1)
    return log_odds_MK[:, k] - others


def without_specks(mesh: Mesh, lead_M: Floats, speck_m2: float = _SPECK_M2) -> Floats:
    """Return the lead with small islands turned around, of the class and of what is not: specks would leave holes."""
    lead_M, size_M = lead_M.copy(), vertex_areas(mesh)
    for side in (1.0, -1.0):
        inside_M = (lead_M >= 0) == (side > 0)
        own = mesh.faces[inside_M[mesh.faces].all(1)]
        number_M = np.full(len(lead_M), -1)
        if len(own):
            number_M[own] = components(own, len(lead_M))[:, None]
        alone = inside_M & (number_M < 0)
        size = np.bincount(number_M[number_M >= 0], weights=size_M[number_M >= 0], minlength=1)
        small_M = alone | ((number_M >= 0) & (size[np.maximum(number_M, 0)] < speck_m2))
        lead_M[small_M] = -side * np.maximum(np.abs(lead_M[small_M]), 0.1)
    return lead_M


def cut_layer(
    mesh: Mesh, lead_M: Floats, *, least_m2: float = _LEAST_M2, most_parts: int = _MOST_PARTS
) -> Layer | None:
    """Return the surface where a class leads, cut along the line at which it ends; None where it is too little.

    Kept are the largest one or two connected parts of at least `least_m2` square metres.
    """
    inside_M = lead_M >= 0
    count_F = inside_M[mesh.faces].sum(1)
    # Each face turned so that its odd corner comes first: the one inside, or of two inside the one that is not.
    one, two = (_turned(mesh.faces[count_F == number], inside_M, number == 1) for number in (1, 2))
    ends = np.concatenate([one[:, [0, 1]], one[:, [0, 2]], two[:, [1, 0]], two[:, [2, 0]]])
    unique, place = np.unique(np.sort(ends, axis=1), axis=0, return_inverse=True)
    inner = np.where(inside_M[unique[:, 0]], unique[:, 0], unique[:, 1])
    outer = unique.sum(1) - inner
    share = lead_M[inner] / (lead_M[inner] - lead_M[outer])
    share = share.clip(_LEAST_SHARE, 1 - _LEAST_SHARE)
    first, second, third, fourth = np.split(
        len(mesh.vertices) + place.reshape(-1), np.cumsum([len(one), len(one), len(two)])
    )
    faces = np.concatenate(
        [
            mesh.faces[count_F == 3],
            np.stack([one[:, 0], first, second], axis=1),
            np.stack([two[:, 1], two[:, 2], third], axis=1),
            np.stack([two[:, 2], fourth, third], axis=1),
        ]
    )
    own = np.arange(len(mesh.vertices))
    corners = np.concatenate([np.stack([own, own], axis=1), np.stack([inner, outer], axis=1)])
    shares = np.concatenate([np.zeros(len(own)), share])
    return _largest(Layer(_mixed(mesh, corners, shares, faces), corners, shares), least_m2, most_parts)


def _turned(faces_F3: Ints, inside_M: NDArray[np.bool_], wanted: bool) -> Ints:
    odd_F = (inside_M[faces_F3] == wanted).argmax(1)
    return np.take_along_axis(faces_F3, (odd_F[:, None] + np.arange(3)) % 3, axis=1)


def _mixed(mesh: Mesh, corners: Ints, shares: Floats, faces: Ints) -> Mesh:
    bare = Layer(mesh, corners, shares)
    colours = None if mesh.colours is None else bare.carried(mesh.colours)
    labels = None if mesh.labels is None else mesh.labels[corners[:, 0]]
    return Mesh(bare.carried(mesh.vertices), faces, colours, labels)


def _largest(layer: Layer, least_m2: float, most_parts: int) -> Layer | None:
    faces = layer.mesh.faces
    if not len(faces):
        return None
    number_F, size_F = components(faces, len(layer.mesh.vertices)), areas(layer.mesh)
    size = np.bincount(number_F, weights=size_F)
    kept = [one for one in np.argsort(-size)[:most_parts] if size[one] >= least_m2]
    if not kept:
        return None
    own, kept_N = part(layer.mesh, faces[np.isin(number_F, kept)])
    return Layer(own, layer.corners_N2[kept_N], layer.shares_N[kept_N])
