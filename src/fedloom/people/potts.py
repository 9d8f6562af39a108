"""Points of a surface, which of them are neighbours, and labels that neighbours share: a Potts field by mean field."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from fedloom.base.errors import DataError
from fedloom.base.extras import library
from fedloom.people.meshes import Floats, Ints, Mesh, edges, vertex_areas, vertex_normals

__all__ = ["SurfacePoints", "affinity", "mean_field", "near_pairs", "softmax", "surface_points"]


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """Points that shall be labelled."""

    points_N3: Floats
    """Metres."""
    normals_N3: Floats
    areas_N: Floats
    """Of the surface about each, square metres."""
    pairs_E2: Ints
    """Neighbours: the edges of a mesh, or `near_pairs`."""
    colours_N3: Floats | None = None
    """0 to 1; where there are some, labels rather change where colours do."""

    def __post_init__(self) -> None:
        n_points = len(self.points_N3)
        shapes = (self.points_N3.shape, self.normals_N3.shape, self.areas_N.shape)
        if shapes != ((n_points, 3), (n_points, 3), (n_points,)):
            raise DataError(f"surface points: found shapes {shapes}, allowed are (N, 3), (N, 3) and (N,).")
        if self.colours_N3 is not None and self.colours_N3.shape != (n_points, 3):
            raise DataError(f"surface points: found colours {self.colours_N3.shape}, allowed are ({n_points}, 3).")
        if len(self.pairs_E2) and not 0 <= self.pairs_E2.min() <= self.pairs_E2.max() < n_points:
            raise DataError(f"surface points: found a pair beyond {n_points} points; are they of another mesh?")


def surface_points(mesh: Mesh) -> SurfacePoints:
    """Return the vertices of a mesh as points to label, each with a third of its faces' area."""
    return SurfacePoints(mesh.vertices, vertex_normals(mesh), vertex_areas(mesh), edges(mesh.faces)[0], mesh.colours)


def near_pairs(points_N3: Floats, count: int = 8) -> Ints:
    """Return the pairs [E, 2] of points of which one is among the other's `count` nearest."""
    near_NC = library("scipy.spatial", "people").cKDTree(points_N3).query(points_N3, k=count + 1)[1]
    pairs_E2 = np.stack([np.repeat(np.arange(len(points_N3)), count + 1), near_NC.ravel()], axis=1)
    pairs_E2 = np.sort(pairs_E2[(pairs_E2[:, 0] != pairs_E2[:, 1]) & (pairs_E2[:, 1] < len(points_N3))], axis=1)
    return np.unique(pairs_E2, axis=0)


def affinity(where: SurfacePoints, reach_m: float, colour_reach: float | None) -> Any:
    """Return how much neighbours are of one kind, a sparse symmetric matrix [N, N].

    It is max(0, n·n') exp(-|x - x'|² / reach²), times exp(-|c - c'|² / colour_reach²) where there are colours.
    """
    first_E, second_E = where.pairs_E2.T
    apart_E3 = where.points_N3[first_E] - where.points_N3[second_E]
    alike_E = np.einsum("ed,ed->e", where.normals_N3[first_E], where.normals_N3[second_E]).clip(0)
    alike_E = alike_E * np.exp(-np.einsum("ed,ed->e", apart_E3, apart_E3) / reach_m**2)
    if where.colours_N3 is not None and colour_reach is not None:
        shift_E3 = where.colours_N3[first_E] - where.colours_N3[second_E]
        alike_E = alike_E * np.exp(-np.einsum("ed,ed->e", shift_E3, shift_E3) / colour_reach**2)
    rows, columns = np.concatenate([first_E, second_E]), np.concatenate([second_E, first_E])
    sparse, shape = library("scipy.sparse", "people"), (len(where.points_N3),) * 2
    return sparse.csr_matrix((np.concatenate([alike_E, alike_E]), (rows, columns)), shape=shape)


def softmax(logits_XK: Floats) -> Floats:
    """Return shares over the last axis; of a few classes numpy's own sums along it take thrice as long."""
    top_X = reduce(np.maximum, np.moveaxis(logits_XK, -1, 0))
    shares_XK = np.exp(logits_XK - top_X[..., None])
    return shares_XK / (shares_XK @ np.ones(shares_XK.shape[-1]))[..., None]


def mean_field(evidence_NK: Floats, affinity_NN: Any, strength: float, rounds: int) -> Floats:
    """Return the log-odds [N, K] of labels by evidence and neighbours, of minimal energy by mean field.

    The energy is -Σ evidence + strength Σ affinity [labels differ]; each round adds the neighbours' shares to the
    evidence. Unlike a cut of the graph over one label each it keeps how sure the evidence is.
    Source: Koller & Friedman 2009, Probabilistic Graphical Models, 11.5.
    """
    odds_NK = evidence_NK
    for _ in range(rounds):
        odds_NK = evidence_NK + strength * (affinity_NN @ softmax(odds_NK))
    return odds_NK


def without(evidence_NK: Floats, classes: Sequence[int], floor: float) -> Floats:
    """Return evidence with nothing for some classes."""
    kept_NK = evidence_NK.copy()
    kept_NK[:, list(classes)] = floor
    return kept_NK
