"""SMPL-D: a garment as offsets from a body's vertices in rest, found by registration and carried to other bodies.

`v = W(template + shape(beta) + pose(theta) + D)`, D zero outside the garment. In the spirit of IPNet's registration and
of USR's swap; D is re-expressed in each vertex's own frame, so that a sleeve follows another arm.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedloom.base.errors import DataError
from fedloom.base.extras import library
from fedloom.people.body import Body
from fedloom.people.meshes import (
    Floats,
    Ints,
    Mesh,
    boundary_loops,
    edges,
    face_normals,
    laplacian_tensor,
    part,
    vertex_normals,
)
from fedloom.people.nearest import NearestPoints, draw_points
from fedloom.people.patches import closed, patch
from fedloom.people.stance import Stance, shaped, stood

__all__ = ["Offsets", "carried", "local_frames", "registered", "worn"]

_SEEN_M, _STEP_M, _HIT_M = 0.08, 0.004, 0.006
_LEAST_M = 0.002
"""How far outside the body a garment stays."""


@dataclass(frozen=True, eq=False)
class Offsets:
    """A garment on a body's topology."""

    offsets_M3: Floats
    """From all vertices of the body in rest, zero outside the garment."""
    faces_F3: Ints
    """The garment's faces, of the body's vertices."""


def local_frames(rest: Mesh) -> Floats:
    """Return a rotation of each vertex [M, 3, 3]: its columns are a tangent, a second one and the normal.

    The tangent points to the vertex's first neighbour, so that bodies of one topology have frames that correspond.
    """
    normals_M3 = vertex_normals(rest)
    edges_E2, _ = edges(rest.faces)
    first_M = np.zeros(len(rest.vertices), np.int64)
    both = np.concatenate([edges_E2, edges_E2[:, ::-1]])[::-1]
    first_M[both[:, 0]] = both[:, 1]  # the last that is written stays: the least neighbour above, or below
    way_M3 = rest.vertices[first_M] - rest.vertices
    tangent_M3 = way_M3 - (way_M3 * normals_M3).sum(1, keepdims=True) * normals_M3
    tangent_M3 /= np.maximum(np.linalg.norm(tangent_M3, axis=1, keepdims=True), 1e-12)
    return np.stack([tangent_M3, np.cross(normals_M3, tangent_M3), normals_M3], axis=2)


def carried(offsets_M3: Floats, rest_from: Mesh, rest_to: Mesh) -> Floats:
    """Return offsets of one shape of a body as those of another: the same in each vertex's own frame."""
    own_M3 = np.einsum("mab,ma->mb", local_frames(rest_from), offsets_M3)
    return np.einsum("mab,mb->ma", local_frames(rest_to), own_M3)


def worn(garment: Offsets, body: Body, shape_S: Floats, by: Stance) -> Mesh:
    """Return a garment of a person of shape numbers `shape_S` posed on another; `penetration` brings it out of them."""
    offsets_M3 = carried(garment.offsets_M3, shaped(body, shape_S), shaped(body, by.betas_S))
    return part(stood(body, by, offsets_M3).mesh, garment.faces_F3)[0]


def _seeing(scan: Mesh, posed: Mesh) -> Floats:
    """Return how far along its normal each vertex [M] of a body meets a scan; infinite where it does not."""
    points_N3, face_N = draw_points(scan, 40_000, "seen")
    tree = library("scipy.spatial", "people").cKDTree(points_N3)
    facing_F3, normals_M3 = face_normals(scan), vertex_normals(posed)
    met_M = np.full(len(posed.vertices), np.inf)
    for away_m in np.arange(0, _SEEN_M + _STEP_M, _STEP_M):
        away_N, which_N = tree.query(posed.vertices + away_m * normals_M3, distance_upper_bound=_HIT_M)
        hit = np.flatnonzero(np.isfinite(away_N) & np.isinf(met_M))
        facing = (facing_F3[face_N[which_N[hit]]] * normals_M3[hit]).sum(1) > 0.2
        met_M[hit[facing]] = away_m
    return met_M


def _filled(faces_F3: Ints, met_M: Floats) -> Floats:
    """Return the distances with small holes closed, ring by ring, by the mean of the neighbours."""
    edges_E2, _ = edges(faces_F3)
    both_E2 = np.concatenate([edges_E2, edges_E2[:, ::-1]])
    inside_M = closed(faces_F3, np.isfinite(met_M))
    while (inside_M & np.isinf(met_M)).any():
        known_M = np.isfinite(met_M)
        count_M = np.bincount(both_E2[:, 0], known_M[both_E2[:, 1]], len(met_M))
        sum_M = np.bincount(both_E2[:, 0], np.where(known_M, met_M, 0)[both_E2[:, 1]], len(met_M))
        fresh_M = inside_M & ~known_M & (count_M > 0)
        met_M = np.where(fresh_M, sum_M / np.maximum(count_M, 1), met_M)
    return met_M


@dataclass(frozen=True, eq=False)
class _Problem:
    """What registration compares: tensors of the garment's own vertices, and the scan."""

    turns_M33: Tensor
    base_M3: Tensor
    """The body's posed vertices: an offset D comes to `base + turns @ D`."""
    normals_M3: Tensor
    """In rest."""
    uneven_MM: Tensor
    faces_F3: Ints
    ring: Ints
    scan: NearestPoints
    scan_points_N3: Floats
    scan_ring_R3: Floats


def _tensor(array: Floats) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).double()


def _loss(problem: _Problem, offsets_M3: Tensor, turn: int) -> Tensor:
    """Return the sum of squared distances in both directions, smoothness, size, edges and the side of the body."""
    at_M3 = problem.base_M3 + (problem.turns_M33 @ offsets_M3[:, :, None])[:, :, 0]
    here = Mesh(at_M3.detach().numpy(), problem.faces_F3)
    tree = library("scipy.spatial", "people").cKDTree
    to_scan = ((at_M3 - _tensor(problem.scan(here.vertices).points_N3)) ** 2).sum(1).mean()
    near_N, normals_M3 = tree(here.vertices).query(problem.scan_points_N3)[1], _tensor(vertex_normals(here))
    # Along the vertex's normal: the tangential part is the spacing of vertices, not an error.
    apart_N3 = _tensor(problem.scan_points_N3) - at_M3[near_N]
    from_scan = ((apart_N3 * normals_M3[near_N]).sum(1) ** 2).mean()
    ring_M3 = at_M3[problem.ring]
    out = tree(problem.scan_ring_R3).query(here.vertices[problem.ring])[1]
    back = tree(here.vertices[problem.ring]).query(problem.scan_ring_R3)[1]
    edge = ((ring_M3 - _tensor(problem.scan_ring_R3[out])) ** 2).sum(1).mean()
    edge = edge + ((ring_M3[back] - _tensor(problem.scan_ring_R3)) ** 2).sum(1).mean()
    outside = (_LEAST_M - (offsets_M3 * problem.normals_M3).sum(1)).clamp(min=0) ** 2
    smooth = (torch.sparse.mm(problem.uneven_MM, offsets_M3) ** 2).sum(1).mean()
    size = (offsets_M3**2).sum(1).mean()
    data = 100 * (1 + turn) * from_scan + 100 * to_scan + 100 * edge + 1000 * outside.mean()
    return data + 1e3 / (1 + turn) * smooth + size / (1 + turn)


def _problem(scan: Mesh, near: NearestPoints, body: Body, by: Stance, faces_F3: Ints) -> tuple[_Problem, Ints]:
    posed = stood(body, by)
    garment, own_M = part(posed.mesh, faces_F3)
    return _Problem(
        turns_M33=_tensor(posed.by(body.weights_MJ[own_M])[:, :3, :3]),
        base_M3=_tensor(garment.vertices),
        normals_M3=_tensor(vertex_normals(shaped(body, by.betas_S))[own_M]),
        uneven_MM=laplacian_tensor(garment.faces, len(own_M)),
        faces_F3=garment.faces,
        ring=np.concatenate(boundary_loops(garment.faces)),
        scan=near,
        scan_points_N3=draw_points(scan, 4000, "registered")[0],
        scan_ring_R3=scan.vertices[np.concatenate(boundary_loops(scan.faces))],
    ), own_M


def registered(scan: Mesh, body: Body, by: Stance, rounds: int = 5, steps: int = 10) -> Offsets:
    """Return the offsets of a garment, posed on a person and cut out, on the body's topology (route R1).

    The body's vertices that see the garment along their normals within 8 cm carry it; Adam at 0.005, `rounds` times
    `steps` iterations, the data weighing more and smoothness less from round to round. DataError for a scan without an
    edge, as a garment has, and one that the body does not see.
    """
    if not boundary_loops(scan.faces):
        raise DataError("garment: found a closed surface, allowed is one with edges; cut it out of the person.")
    met_M = _filled(body.faces_F3, _seeing(scan, stood(body, by).mesh))
    faces_F3 = patch(body.faces_F3, np.isfinite(met_M))
    problem, own_M = _problem(scan, NearestPoints(scan), body, by, faces_F3)
    first_M = torch.from_numpy(met_M[own_M].clip(_LEAST_M))
    offsets_M3 = (first_M[:, None] * problem.normals_M3).requires_grad_()
    for turn in range(rounds):
        optimiser = torch.optim.Adam([offsets_M3], lr=0.005 / (1 + turn))
        for _ in range(steps):
            optimiser.zero_grad()
            _loss(problem, offsets_M3, turn).backward()
            optimiser.step()
    whole_M3 = np.zeros_like(body.template_M3)
    whole_M3[own_M] = offsets_M3.detach().numpy()
    return Offsets(whole_M3, faces_F3)
