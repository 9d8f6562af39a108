"""Scans as text: triangles of an `.obj` file and the picture that its `.mtl` file lays over them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError, MissingFileError, one_line
from fedloom.people.meshes import Floats, Ints, Mesh
from fedloom.people.picture_files import read_picture
from fedloom.people.raster import averaged

__all__ = ["TexturedMesh", "read_obj"]

_SIDE = 1024
"""To which a texture is brought down: at a few millimetres a texel; pictures of a person have more a pixel."""


@dataclass(frozen=True, eq=False)
class TexturedMesh:
    """A mesh and its texture."""

    mesh: Mesh
    uv_F32: Floats
    """Where in the texture each corner of a face lies, from its lower left, 0 to 1."""
    texture_HW3: Floats
    """0 to 1."""

    def shade(self, face_N: Ints, barycentric_N3: Floats) -> Floats:
        """Return the colours [N, 3] of places on faces."""
        uv_N2 = np.einsum("nc,ncx->nx", barycentric_N3, self.uv_F32[face_N])
        height, width = self.texture_HW3.shape[:2]
        column_N = np.clip(np.floor(uv_N2[:, 0] * width), 0, width - 1).astype(np.int64)
        row_N = np.clip(np.floor((1 - uv_N2[:, 1]) * height), 0, height - 1).astype(np.int64)
        return self.texture_HW3[row_N, column_N]


def read_obj(file: Path) -> TexturedMesh:
    """Return the triangles and the texture of a scan; DataError where it is damaged or has no texture."""
    lines = _lines(file)
    vertices_M3 = _numbers(lines.get("v", []), 3, f"{file}: v")
    places_T2 = _numbers(lines.get("vt", []), 2, f"{file}: vt")
    corners_F32 = _corners(lines.get("f", []), file)
    for at, (name, rows) in enumerate((("v", vertices_M3), ("vt", places_T2))):
        number_F3 = corners_F32[:, :, at]
        if not len(number_F3) or number_F3.min() < 1 or number_F3.max() > len(rows):
            raise DataError(
                f"{file}: found no face, or one that names a `{name}` other than 1 to {len(rows)}; take it anew."
            )
    faces_F32 = corners_F32 - 1
    return TexturedMesh(Mesh(vertices_M3, faces_F32[:, :, 0]), places_T2[faces_F32[:, :, 1]], _texture(lines, file))


def _lines(file: Path) -> dict[str, list[str]]:
    """Return what stands behind the first word of lines, by that word."""
    if not file.is_file():
        raise MissingFileError(f"{file}: no such file; give the folder of a whole scan.")
    found: dict[str, list[str]] = {}
    try:
        with file.open(encoding="utf-8") as opened:
            for line in opened:
                word, _, rest = line.strip().partition(" ")
                found.setdefault(word, []).append(rest)
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is no text ({one_line(error)}); take it anew.") from error
    return found


def _numbers(lines: list[str], columns: int, where: str) -> Floats:
    """Return the first numbers of lines; some programs write colours behind them."""
    try:
        rows = np.array([line.split()[:columns] for line in lines], np.float64).reshape(-1, columns)
    except ValueError as error:
        raise DataError(f"{where}: found other than {columns} numbers ({one_line(error)}); take it anew.") from error
    if not np.isfinite(rows).all():
        raise DataError(f"{where}: found a number that is not finite; take it anew.")
    return rows


def _corners(lines: list[str], file: Path) -> Ints:
    """Return of faces `v/vt v/vt v/vt`, normals behind them or not, the two numbers of each corner [F, 3, 2]."""
    try:
        corners = [[corner.split("/")[:2] for corner in line.split()] for line in lines]
        return np.array(corners, np.int64).reshape(len(lines), 3, 2)
    except ValueError as error:
        raise DataError(
            f"{file}: f: found a face other than three `v/vt` ({one_line(error)}); make triangles."
        ) from error


def _texture(lines: dict[str, list[str]], file: Path) -> Floats:
    named = lines.get("mtllib", [])
    pictures = [name for one in named for name in _lines(_beside(file, one)).get("map_Kd", [])]
    if len(pictures) != 1:
        raise DataError(f"{file}: found {len(pictures)} textures (map_Kd), allowed is 1; bake them into one.")
    return _brought_down(read_picture(_beside(file, pictures[0]), "RGB"))


def _beside(file: Path, name: str) -> Path:
    path = file.parent / name.strip()
    if path.parent.resolve() != file.parent.resolve():
        raise DataError(f"{file}: found a file called '{name}', allowed are those of its own folder.")
    return path


def _brought_down(pixels_HW3: NDArray[np.uint8]) -> Floats:
    """Return a texture 0 to 1, each texel the mean of a square of several where it is large."""
    factor = max(1, max(pixels_HW3.shape[:2]) // _SIDE)
    height, width = (side // factor * factor for side in pixels_HW3.shape[:2])
    return averaged((pixels_HW3[:height, :width] / 255).astype(np.float32), factor)
