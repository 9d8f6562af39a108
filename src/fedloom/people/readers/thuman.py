"""Scans as THuman2.0 and 2.1 have them: photographed by our own cameras, the scan beside them for measuring.

A scan `0000` is a folder with `0000.obj`, and with the `.mtl` file and the texture (`material0.mtl`, `material0.jpeg`)
that it names. The data come on a signed form from their authors. That a release keeps to this layout, to metres and to
y upwards is what published programs rely on; what is otherwise is refused or has to be turned before.
"""

from pathlib import Path

import numpy as np

from fedloom.base.errors import DataError
from fedloom.people.captures import Capture, Photo
from fedloom.people.meshes import Mesh
from fedloom.people.photographs import photographed
from fedloom.people.readers.textured_obj import read_obj
from fedloom.people.studios import Studio
from fedloom.people.truth_files import Truth

__all__ = ["read_thuman"]

_LOWEST_M, _HIGHEST_M = 1.0, 2.3


def read_thuman(folder: Path, studio: Studio, *, consent: bool) -> tuple[Capture, Truth]:
    """Return photographs of a scan as the studio takes them, without parses, and the scan, its feet put to the origin.

    `consent` is what the data's form says of the people. DataError for damaged files and other heights than 1 to 2.3 m.
    """
    scan = read_obj(folder / f"{folder.name}.obj")
    mesh = _standing(scan.mesh, folder)
    cameras = studio.cameras()
    made = photographed(mesh, scan.shade, None, cameras, studio.light)
    photos = tuple(
        Photo(rgb, mask, camera) for rgb, mask, camera in zip(made.rgb_VHW3, made.mask_VHW, cameras, strict=True)
    )
    return Capture(folder.name, photos, studio.name, consent), Truth(mesh, made.seen_F)


def _standing(mesh: Mesh, folder: Path) -> Mesh:
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    size = high - low
    if not _LOWEST_M <= size[1] <= _HIGHEST_M:
        raise DataError(
            f"{folder}: found a scan {size[0]:.4g} wide, {size[1]:.4g} high and {size[2]:.4g} deep, allowed is a "
            f"height (y) of {_LOWEST_M:g} to {_HIGHEST_M:g} m; are its units metres, and is y up?"
        )
    middle = (low + high) / 2
    return mesh.moved(mesh.vertices - np.array([middle[0], low[1], middle[2]]))
