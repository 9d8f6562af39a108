"""From the field to a mesh: only a band around the hull is asked, the rest is the hull's own distance."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fedloom.base.errors import DataError
from fedloom.base.extras import library
from fedloom.people.field import REACH_M, Encoded, Field
from fedloom.people.meshes import Floats, Mesh, largest_part
from fedloom.people.scene import HIGH, LOW, Scene, coarse_hull, outlines

__all__ = ["colours_of", "field_surface", "hull_surface"]

_AT_ONCE = 60_000


def field_surface(field: Field, encoded: Encoded, cell_m: float = 0.015) -> Mesh:
    """Return the largest part of the surface at which the field is zero, by marching cubes (Lewiner's) on cells.

    The field is asked where the hull's distance is below 5 cm, beyond which the surface cannot lie.
    """

    def signed(points_N3: Tensor) -> Tensor:
        return field.pooled(points_N3, encoded).signed_N

    return _surface(encoded.scene, signed, cell_m)


def hull_surface(scene: Scene, cell_m: float = 0.015) -> Mesh:
    """Return the largest part of the visual hull's surface: what is known before anything is learnt."""

    def signed(points_N3: Tensor) -> Tensor:
        return outlines(points_N3, scene)[0].amax(0)

    return _surface(scene, signed, cell_m)


def _surface(scene: Scene, signed: Callable[[Tensor], Tensor], cell_m: float) -> Mesh:
    device = scene.mask_VHW.device
    axes = [torch.arange(low, high + cell_m, cell_m, device=device) for low, high in zip(LOW, HIGH, strict=True)]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    points_N3 = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    value_N = coarse_hull(points_N3, scene.hull_XYZ)
    # A cell that the surface passes has all corners in the band: it is wider than the reach by a cell's diagonal.
    band = (value_N.abs() < REACH_M + 2 * cell_m).nonzero()[:, 0]
    with torch.no_grad():
        value_N[band] = torch.cat([signed(points_N3[at]) for at in band.split(_AT_ONCE)])
    values_XYZ = value_N.reshape(x.shape).cpu().numpy()
    if not (values_XYZ < 0).any():
        raise DataError(
            f"capture '{scene.name}': found no person where all masks agree; are masks and cameras of one capture?"
        )
    cubes = library("skimage.measure", "people").marching_cubes
    vertices, faces, _, _ = cubes(values_XYZ, 0.0, spacing=(cell_m,) * 3, allow_degenerate=False)
    return largest_part(Mesh(vertices.astype(np.float64) + np.array(LOW), faces.astype(np.int64)))


def colours_of(field: Field, encoded: Encoded, points_N3: Floats, normals_N3: Floats) -> Floats:
    """Return the colour [N, 3] of places on a surface, seen from straight before them."""
    device = encoded.scene.mask_VHW.device
    points = torch.from_numpy(points_N3.astype(np.float32)).to(device)
    towards = -torch.from_numpy(normals_N3.astype(np.float32)).to(device)
    with torch.no_grad():
        rows = [
            field.colour(field.pooled(here, encoded), here, there, encoded)
            for here, there in zip(points.split(_AT_ONCE), towards.split(_AT_ONCE), strict=True)
        ]
    return torch.cat(rows).clamp(0, 1).cpu().numpy().astype(np.float64)
