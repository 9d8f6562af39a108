"""The geometry of a layer after it was cut: edges smooth, seams even, outlines where the photographs have them.

In the spirit of USR's module of that purpose, whose formulas are not known here. Deviations: all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedloom.base.plugin import Count, NonNegative, check_ranges
from fedloom.people.cameras import Camera
from fedloom.people.layer_metrics import roughness_mm
from fedloom.people.loops import faired_seams, smoothed_loops
from fedloom.people.meshes import (
    Floats,
    Ints,
    Mesh,
    boundary_loops,
    edges,
    face_normals,
    laplacian_tensor,
    vertex_normals,
)
from fedloom.people.nearest import NearestPoints
from fedloom.people.raster import depths_of
from fedloom.people.scene import Scene, outlines

__all__ = ["FineTuning", "Tuned", "fine_tuned"]

_BEHIND_M, _PICK_EVERY, _MOST_M = 0.015, 25, 0.015


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """What the terms count; `steps = 0` leaves outlines as they are."""

    steps: Count = 60
    """Of Adam, on offsets along the normals."""
    laplacian: NonNegative = 10.0
    edge: NonNegative = 1.0
    hem: NonNegative = 1.0
    """Of the third difference along an edge."""
    colour: NonNegative = 0.02
    rate_m: NonNegative = 5e-4

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, eq=False)
class Tuned:
    """A tuned layer, and how rough its edges were and are."""

    mesh: Mesh
    rough_before_mm: float
    rough_after_mm: float


def fine_tuned(
    layer: Mesh, whole: Mesh, scene: Scene, cameras: Sequence[Camera], settings: FineTuning | None = None
) -> Tuned:
    """Return a layer that was cut from the whole: edges smooth, seams faired, outlines moved to the pictures'."""
    asked, loops = settings or FineTuning(), boundary_loops(layer.faces)
    smooth = faired_seams(smoothed_loops(layer, loops, NearestPoints(whole)), loops)
    moved = _moved(smooth, whole, loops, scene, cameras, asked) if asked.steps else smooth
    return Tuned(moved, _rough(layer, loops), _rough(moved, loops))


def _rough(mesh: Mesh, loops: Sequence[Ints]) -> float:
    return float(np.mean([roughness_mm(mesh.vertices[loop]) for loop in loops])) if loops else 0.0


def _moved(
    layer: Mesh, whole: Mesh, loops: Sequence[Ints], scene: Scene, cameras: Sequence[Camera], asked: FineTuning
) -> Mesh:
    vertices_N3 = torch.from_numpy(layer.vertices.astype(np.float32))
    normals_N3 = torch.from_numpy(vertex_normals(layer).astype(np.float32))
    edges_E2 = torch.from_numpy(edges(layer.faces)[0])
    length_E = (vertices_N3[edges_E2[:, 0]] - vertices_N3[edges_E2[:, 1]]).norm(dim=1)
    uneven_NN = laplacian_tensor(layer.faces, len(vertices_N3)).float()
    flat_N3, rims = uneven_NN @ vertices_N3, list[tuple[Tensor, Tensor]]()
    offset_N = torch.zeros(len(vertices_N3), requires_grad=True)
    adam = torch.optim.Adam([offset_N], lr=asked.rate_m)
    depths = depths_of(whole, cameras)
    for step in range(asked.steps):
        moved_N3 = vertices_N3 + offset_N.clamp(-_MOST_M, _MOST_M)[:, None] * normals_N3
        if step % _PICK_EVERY == 0:
            shape = layer.moved(moved_N3.detach().numpy().astype(np.float64))
            rims = [_seen(shape, camera, depth) for camera, depth in zip(cameras, depths, strict=True)]
        now_E = (moved_N3[edges_E2[:, 0]] - moved_N3[edges_E2[:, 1]]).norm(dim=1)
        loss = _outline(moved_N3, rims, scene) + asked.colour * _colours(moved_N3, rims, scene)
        loss = loss + asked.laplacian * (uneven_NN @ moved_N3 - flat_N3).norm(dim=1).mean()
        loss = loss + asked.edge * (now_E - length_E).abs().mean() + asked.hem * _hems(moved_N3, loops)
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        moved_N3 = vertices_N3 + offset_N.clamp(-_MOST_M, _MOST_M)[:, None] * normals_N3
    return layer.moved(moved_N3.numpy().astype(np.float64))


def _seen(layer: Mesh, camera: Camera, depth_HW: Floats) -> tuple[Tensor, Tensor]:
    """Return the vertices that lie on the outline in a view, and those that the camera sees."""
    pixels_N2, depth_N = camera.project(layer.vertices)
    row, column = np.floor(pixels_N2[:, 1]).astype(int), np.floor(pixels_N2[:, 0]).astype(int)
    inside = (row >= 0) & (row < camera.height) & (column >= 0) & (column < camera.width)
    first_N = np.full(len(depth_N), np.inf)
    first_N[inside] = depth_HW[row[inside], column[inside]]
    free_N = inside & (depth_N < first_N + _BEHIND_M)
    front_F = (face_normals(layer) * (layer.vertices[layer.faces].mean(1) - camera.centre)).sum(1) < 0
    fronts = np.bincount(layer.faces.ravel(), np.repeat(front_F, 3), minlength=len(depth_N))
    backs = np.bincount(layer.faces.ravel(), np.repeat(~front_F, 3), minlength=len(depth_N))
    rim_N, seen_N = free_N & (fronts > 0) & (backs > 0), free_N & (backs == 0)
    return torch.from_numpy(np.flatnonzero(rim_N)), torch.from_numpy(np.flatnonzero(seen_N))


def _outline(moved_N3: Tensor, rims: Sequence[tuple[Tensor, Tensor]], scene: Scene) -> Tensor:
    """Return how far vertices of outlines lie from the silhouettes, metres on the mean."""
    off = [outlines(moved_N3[rim], scene)[0][view].abs() for view, (rim, _) in enumerate(rims) if len(rim)]
    return torch.cat(off).clamp(max=0.03).mean() if off else moved_N3.sum() * 0


def _colours(moved_N3: Tensor, rims: Sequence[tuple[Tensor, Tensor]], scene: Scene) -> Tensor:
    """Return how far what views show of a vertex is from what they show of it on the mean."""
    _, grid_VN12, _ = outlines(moved_N3, scene)
    shown_VN3 = functional.grid_sample(scene.rgb_V3HW, grid_VN12, padding_mode="border", align_corners=False)
    shown_VN3 = shown_VN3[:, :, :, 0].transpose(1, 2)
    sees_VN1 = torch.zeros(len(rims), len(moved_N3), 1)
    for view, (_, seen) in enumerate(rims):
        sees_VN1[view, seen] = 1
    count_N1 = sees_VN1.sum(0).clamp(min=1)
    mean_N3 = ((sees_VN1 * shown_VN3).sum(0) / count_N1).detach()
    return (sees_VN1 * (shown_VN3 - mean_N3).abs()).sum() / sees_VN1.sum().clamp(min=1)


def _hems(moved_N3: Tensor, loops: Sequence[Ints]) -> Tensor:
    """Return the third difference along the edges, metres on the mean."""
    total = moved_N3.sum() * 0
    for loop in loops:
        line_L3 = moved_N3[torch.from_numpy(loop)]
        third_L3 = line_L3.roll(-2, 0) - 3 * line_L3.roll(-1, 0) + 3 * line_L3 - line_L3.roll(1, 0)
        total = total + third_L3.norm(dim=1).mean()
    return total / max(1, len(loops))
