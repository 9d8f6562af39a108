"""Edges of layers made smooth: along the surface that they were cut from, and without becoming shorter."""

from collections.abc import Sequence

import numpy as np

from fedloom.base.extras import library
from fedloom.people.meshes import Floats, Ints, Mesh, laplacian, vertex_normals
from fedloom.people.nearest import NearestPoints

__all__ = ["faired_seams", "smoothed_loop", "smoothed_loops", "spaced"]

_IN, _OUT, _TIMES = 0.5, -0.53, 20
_SPACING_M, _PASSES = 0.012, 4
"""A staircase is longer than the line it stands for: spread anew, its steps become waves that a pass takes away."""


def smoothed_loop(points_L3: Floats, normals_L3: Floats, times: int = _TIMES) -> Floats:
    """Return a closed line smoothed by Taubin's two steps (1995), in the tangent plane of its surface at each point.

    A step of 0.5 towards the neighbours' mean and one of -0.53 back: waves go, and the length stays. Steps go over
    points 1.2 cm apart: what counts as a wave must not depend on how often the surface's triangles were cut.
    """
    place_L, length = _along(points_L3)
    even_N = _even(length, _SPACING_M)
    line_N3, normals_N3 = (_at(place_L, length, values, even_N) for values in (points_L3, normals_L3))
    normals_N3 /= np.linalg.norm(normals_N3, axis=1, keepdims=True) + 1e-9
    for _ in range(times):
        for share in (_IN, _OUT):
            pull_N3 = (np.roll(line_N3, 1, axis=0) + np.roll(line_N3, -1, axis=0)) / 2 - line_N3
            pull_N3 -= (pull_N3 * normals_N3).sum(1, keepdims=True) * normals_N3
            line_N3 = line_N3 + share * pull_N3
    return _at(even_N, length, line_N3, place_L)


def spaced(points_L3: Floats, spacing_m: float) -> Floats:
    """Return points of a closed line about `spacing_m` apart, at least 8."""
    place_L, length = _along(points_L3)
    return _at(place_L, length, points_L3, _even(length, spacing_m))


def _even(length: float, spacing_m: float) -> Floats:
    count = max(8, round(length / spacing_m))
    return np.arange(count) / count * length


def _along(points_L3: Floats) -> tuple[Floats, float]:
    """Return how far along a closed line its points lie, and how long it is."""
    step_L = np.linalg.norm(np.roll(points_L3, -1, axis=0) - points_L3, axis=1)
    return np.cumsum(step_L) - step_L, float(step_L.sum())


def _at(known_L: Floats, length: float, values_L3: Floats, asked_N: Floats) -> Floats:
    return np.stack([np.interp(asked_N, known_L, column, period=length) for column in values_L3.T], axis=1)


def smoothed_loops(layer: Mesh, loops: Sequence[Ints], surface: NearestPoints) -> Mesh:
    """Return a layer whose edges are smooth and still on the surface that it was cut from."""
    vertices_N3, normals_N3 = layer.vertices.copy(), vertex_normals(layer)
    for loop in loops:
        for _ in range(_PASSES):
            vertices_N3[loop] = surface(smoothed_loop(vertices_N3[loop], normals_N3[loop])).points_N3
    return layer.moved(vertices_N3)


def faired_seams(layer: Mesh, loops: Sequence[Ints], rings: int = 3) -> Mesh:
    """Return a layer whose vertices up to three rings from an edge lie as evenly as they can between edge and inside.

    Their bi-Laplacian is zero, edges and inside stay where they are.
    """
    near = np.zeros(len(layer.vertices), bool)
    edge = np.concatenate(loops) if loops else np.zeros(0, np.int64)
    near[edge] = True
    for _ in range(rings):
        near[np.unique(layer.faces[near[layer.faces].any(1)])] = True
    near[edge] = False
    band = np.flatnonzero(near)
    if not len(band):
        return layer
    twice = (laplacian(layer.faces, len(near)) @ laplacian(layer.faces, len(near))).tocsc()
    fixed_N3 = np.where(near[:, None], 0.0, layer.vertices)
    solved = library("scipy.sparse.linalg", "people").spsolve(twice[band][:, band], -(twice[band] @ fixed_N3))
    vertices_N3 = layer.vertices.copy()
    vertices_N3[band] = solved
    return layer.moved(vertices_N3)
