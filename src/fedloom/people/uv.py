"""Textures: a layer unwrapped onto a picture, each texel coloured where it lies on the surface (xatlas)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom.base.extras import library
from fedloom.people.cameras import Camera
from fedloom.people.meshes import Floats, Ints, Mesh, vertex_normals
from fedloom.people.raster import rasterise, shaded

__all__ = ["Textured", "unwrapped"]

Colours = Callable[[Floats, Floats], Floats]
"""The colours [N, 3] of points of a surface with their normals, 0 to 1."""


@dataclass(frozen=True, eq=False)
class Textured:
    """A mesh with a picture; vertices on seams of the picture are there once for each side."""

    mesh: Mesh
    uv_M2: Floats
    """Places in the picture, 0 to 1 from its lower left corner."""
    picture_HW3: NDArray[np.uint8]
    source_M: Ints
    """Which vertex of the unwrapped mesh each is."""


def unwrapped(mesh: Mesh, colours: Colours, size: int = 512) -> Textured:
    """Return a mesh unwrapped onto a square picture of `size` texels a side; where no face is, the nearest colour."""
    source_M, faces_F3, uv_M2 = library("xatlas", "texture").parametrize(
        mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32)
    )
    source_M, faces_F3, uv_M2 = source_M.astype(np.int64), faces_F3.astype(np.int64), uv_M2.astype(np.float64)
    vertices_M3, normals_M3 = mesh.vertices[source_M], vertex_normals(mesh)[source_M]
    # The picture is what a camera straight before the unwrapped plane sees.
    plane = Mesh(np.stack([uv_M2[:, 0], 1 - uv_M2[:, 1], np.ones(len(uv_M2))], axis=1), faces_F3)
    raster = rasterise(plane, Camera(np.diag((size, size, 1.0)), np.eye(3), np.zeros(3), size, size))

    def coloured(face_N: Ints, share_N3: Floats) -> Floats:
        points_N3, normals_N3 = (
            np.einsum("nc,ncx->nx", share_N3, values[faces_F3[face_N]]) for values in (vertices_M3, normals_M3)
        )
        return colours(points_N3, normals_N3)

    picture = shaded(raster, coloured, faces_F3)
    distances = library("scipy.ndimage", "texture").distance_transform_edt
    _, (rows, columns) = distances(raster.face_HW < 0, return_indices=True)
    kept = Mesh(vertices_M3, faces_F3, None if mesh.colours is None else mesh.colours[source_M])
    return Textured(kept, uv_M2, np.rint(255 * picture[rows, columns].clip(0, 1)).astype(np.uint8), source_M)
