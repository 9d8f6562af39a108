"""Arrays on disk, read without running anything that a file holds."""

import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError, MissingFileError, one_line
from fedloom.base.files import write_bytes
from fedloom.people.meshes import Mesh

__all__ = ["Arrays", "array_of", "arrays_of", "mesh_of", "read_array", "read_arrays", "write_arrays"]

Arrays = dict[str, NDArray[Any]]
_LARGEST = 2**30  # bytes: what packs well may be a thousand times its file


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name as an npz file, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def arrays_of(name: str, mesh: Mesh) -> Arrays:
    """Return a mesh as arrays whose names begin with its own."""
    parts = {"vertices": mesh.vertices, "faces": mesh.faces, "colours": mesh.colours, "labels": mesh.labels}
    return {f"{name}.{key}": array for key, array in parts.items() if array is not None}


def mesh_of(arrays: Arrays, name: str, file: Path) -> Mesh:
    """Return the mesh of that name; DataError, naming the file, where it is not one."""
    vertices_M3, faces_F3 = (
        array_of(arrays, f"{name}.vertices", "f", file),
        array_of(arrays, f"{name}.faces", "iu", file),
    )
    for key, array in (("vertices", vertices_M3), ("faces", faces_F3)):
        if array.ndim != 2 or array.shape[1] != 3:
            raise DataError(f"{file}: {name}.{key}: found shape {array.shape}, allowed are rows of 3; write it anew.")
    if not np.isfinite(vertices_M3).all() or (faces_F3 < 0).any() or (faces_F3 >= len(vertices_M3)).any():
        raise DataError(
            f"{file}: {name}: found a vertex that is not finite, or a face of one that is not there; write it anew."
        )
    return Mesh(vertices_M3, faces_F3, arrays.get(f"{name}.colours"), arrays.get(f"{name}.labels"))


def array_of(arrays: Arrays, name: str, kinds: str, file: Path) -> NDArray[Any]:
    """Return the array of that name and of one of the kinds; DataError, naming the file, where there is none."""
    if name not in arrays or arrays[name].dtype.kind not in kinds:
        found = arrays[name].dtype if name in arrays else "none"
        raise DataError(
            f"{file}: {name}: found {found}, allowed is an array of kind {' or '.join(kinds)}; write it anew."
        )
    return arrays[name]


def read_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file by name; MissingFileError, and DataError for a damaged one or one of objects.

    Of `names` alone where they are given: what others hold is not looked at.
    """
    found = _read(path, names)
    if not isinstance(found, dict):
        raise DataError(f"{path}: found one array without a name, allowed is an npz file; write it anew.")
    return found


def read_array(path: Path) -> NDArray[Any]:
    """Return the array of an npy file; MissingFileError, and DataError for a damaged one or one of objects."""
    found = _read(path)
    if isinstance(found, dict):
        raise DataError(f"{path}: found an npz file, allowed is an npy file of one array; write it anew.")
    return found


def _read(path: Path, names: Collection[str] | None = None) -> NDArray[Any] | dict[str, NDArray[Any]]:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file of arrays; give the path of one.")
    try:
        with path.open("rb") as file:  # numpy leaves a damaged file open that it opened itself
            size = sum(entry.file_size for entry in ZipFile(file).infolist()) if is_zipfile(file) else 0
            if size > _LARGEST:
                raise ValueError(f"found {size} bytes of arrays, allowed are {_LARGEST}")
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return {name: loaded[name] for name in loaded.files if names is None or name in names}
    except (OSError, ValueError, BadZipFile, ZlibError, EOFError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: no file of plain arrays ({one_line(error)}); write it anew.") from error
