"""Triangle meshes: vertices, faces, and what is asked of them again and again."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedloom.base.extras import library

__all__ = [
    "Mesh",
    "areas",
    "boundary_loops",
    "components",
    "edges",
    "face_normals",
    "is_edge_manifold",
    "joined",
    "laplacian",
    "laplacian_tensor",
    "largest_part",
    "part",
    "smoothed",
    "vertex_areas",
    "vertex_normals",
]

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles between points."""

    vertices: Floats
    """[M, 3], metres."""
    faces: Ints
    """[F, 3], counter-clockwise seen from outside."""
    colours: Floats | None = None
    """[M, 3], 0 to 1."""
    labels: Ints | None = None
    """[M], classes of `labels`."""

    def moved(self, vertices: Floats) -> "Mesh":
        """Return the mesh with its vertices elsewhere."""
        return replace(self, vertices=vertices)


def part(mesh: Mesh, faces: Ints) -> tuple[Mesh, Ints]:
    """Return the mesh of some faces [F', 3], and which vertices of the whole [M'] are its own."""
    kept_M, flat = np.unique(faces, return_inverse=True)
    colours = None if mesh.colours is None else mesh.colours[kept_M]
    labels = None if mesh.labels is None else mesh.labels[kept_M]
    return Mesh(mesh.vertices[kept_M], flat.reshape(-1, 3), colours, labels), kept_M


def joined(*meshes: Mesh) -> Mesh:
    """Return several meshes as one; colours and labels stay where all have them."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])[:-1]
    colours = [mesh.colours for mesh in meshes if mesh.colours is not None]
    labels = [mesh.labels for mesh in meshes if mesh.labels is not None]
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]),
        np.concatenate(colours) if len(colours) == len(meshes) else None,
        np.concatenate(labels) if len(labels) == len(meshes) else None,
    )


def largest_part(mesh: Mesh) -> Mesh:
    """Return the connected part of the greatest area."""
    own_F = components(mesh.faces, len(mesh.vertices))
    size = np.bincount(own_F, weights=areas(mesh))
    return part(mesh, mesh.faces[own_F == size.argmax()])[0]


def vertex_areas(mesh: Mesh) -> Floats:
    """Return a third of the area of the faces around each vertex [M], square metres."""
    shares = np.repeat(areas(mesh) / 3, 3)
    return np.bincount(mesh.faces.ravel(), shares, minlength=len(mesh.vertices)).astype(float)


def _crossed(vertices: Floats, faces: Ints) -> Floats:
    first, second, third = (vertices[faces[:, corner]] for corner in range(3))
    return np.cross(second - first, third - first)


def areas(mesh: Mesh) -> Floats:
    """Return the area of each face [F], square metres."""
    return np.linalg.norm(_crossed(mesh.vertices, mesh.faces), axis=1) / 2


def face_normals(mesh: Mesh) -> Floats:
    """Return the outward normal of each face [F, 3], of length 1; zeros where a face has no area."""
    return _unit(_crossed(mesh.vertices, mesh.faces))


def vertex_normals(mesh: Mesh) -> Floats:
    """Return the mean normal of the faces around each vertex [M, 3], by their areas."""
    crossed_F3 = _crossed(mesh.vertices, mesh.faces)
    sum_M3 = np.zeros_like(mesh.vertices)
    for axis in range(3):
        weights = np.repeat(crossed_F3[:, axis], 3)
        sum_M3[:, axis] = np.bincount(mesh.faces.ravel(), weights, minlength=len(mesh.vertices))
    return _unit(sum_M3)


def _unit(rows_N3: Floats) -> Floats:
    length_N1 = np.linalg.norm(rows_N3, axis=1, keepdims=True)
    return rows_N3 / np.where(length_N1 == 0, 1, length_N1)


def edges(faces: Ints) -> tuple[Ints, Ints]:
    """Return the undirected edges [E, 2], smaller vertex first, and how many faces have each [E]."""
    all_E2 = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    return np.unique(all_E2, axis=0, return_counts=True)


def is_edge_manifold(faces: Ints) -> bool:
    """Return whether every edge lies at one or two faces, and those of two run through it in opposite directions."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    return len(np.unique(directed, axis=0)) == len(directed) and bool((edges(faces)[1] <= 2).all())


def boundary_loops(faces: Ints) -> list[Ints]:
    """Return the loops of edges that have one face, each as its vertices in order, longest first."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    sorted_E2 = np.sort(directed, axis=1)
    _, place, count = np.unique(sorted_E2, axis=0, return_inverse=True, return_counts=True)
    open_E2 = directed[count[place] == 1]
    following: dict[int, list[int]] = {}
    for start, end in open_E2.tolist():
        following.setdefault(start, []).append(end)
    loops: list[Ints] = []
    while following:
        loop, at = list[int](), next(iter(following))
        while at in following:
            loop.append(at)
            ends = following[at]
            after = ends.pop()
            if not ends:
                del following[at]
            at = after
        loops.append(np.array(loop))
    return sorted(loops, key=len, reverse=True)


def components(faces: Ints, n_vertices: int) -> Ints:
    """Return the number of the connected part that each face lies in [F]; faces are connected at vertices."""
    edges_E2, _ = edges(faces)
    sparse, graph = library("scipy.sparse", "people"), library("scipy.sparse.csgraph", "people")
    ones = np.ones(len(edges_E2))
    matrix = sparse.coo_matrix((ones, (edges_E2[:, 0], edges_E2[:, 1])), shape=(n_vertices, n_vertices))
    return graph.connected_components(matrix, directed=False)[1][faces[:, 0]]


def laplacian(faces: Ints, n_vertices: int) -> Any:
    """Return the uniform graph Laplacian as a sparse matrix [M, M]: a vertex less the mean of its neighbours."""
    edges_E2, _ = edges(faces)
    sparse = library("scipy.sparse", "people")
    both = np.concatenate([edges_E2, edges_E2[:, ::-1]])
    ones = np.ones(len(both))
    near = sparse.csr_matrix((ones, (both[:, 0], both[:, 1])), shape=(n_vertices, n_vertices))
    degree = np.asarray(near.sum(1)).ravel()
    inverse = sparse.diags(1 / np.maximum(degree, 1))
    return sparse.diags((degree > 0).astype(float)) - inverse @ near


def laplacian_tensor(faces: Ints, n_vertices: int) -> Tensor:
    """Return `laplacian` as a sparse tensor of 64 bits."""
    uneven = laplacian(faces, n_vertices).tocoo()
    places_2N = torch.from_numpy(np.stack([uneven.row, uneven.col]).astype(np.int64))
    values_N = torch.from_numpy(uneven.data).double()
    return torch.sparse_coo_tensor(places_2N, values_N, uneven.shape, check_invariants=True).coalesce()


def smoothed(faces: Ints, values_MX: Floats, times: int) -> Floats:
    """Return values of vertices [M, X], each moved half the way to the mean of its neighbours, some times."""
    uneven = laplacian(faces, len(values_MX))
    for _ in range(times):
        values_MX = values_MX - 0.5 * (uneven @ values_MX)
    return values_MX
