"""One moment of a sequence as 4D-DRESS has it: photographs of real people, and the scan with its labels for measuring.

    TAKE/Meshes_pkl/mesh-f00006.pkl             {"vertices": [M, 3], "faces": [F, 3], ...}, metres
    TAKE/Semantic/labels/label-f00006.pkl       {"scan_labels": [M]}: skin 0, hair 1, shoe 2, upper 3, lower 4, outer 5
    TAKE/Capture/cameras.pkl                    {"0004": {"intrinsics": [3, 3], "extrinsics": [3, 4]}, ...}
    TAKE/Capture/0004/images/capture-f00006.png RGB, 1280 x 940
    TAKE/Capture/0004/masks/mask-f00006.png     grey, the same size

TAKE is a folder SUBJECT/OUTFIT/TAKE of the data, which their authors give on request. So it stands in their published
description; that masks are grey, extrinsics lead from the world to the camera as OpenCV has them, and y is up, is read
from their programs and not tried on a file of theirs. `rotation` and `offset` of their basic_info.pkl are not used.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError
from fedloom.people.cameras import Camera
from fedloom.people.captures import Capture, Photo
from fedloom.people.labels import common
from fedloom.people.meshes import Mesh
from fedloom.people.picture_files import read_picture
from fedloom.people.raster import averaged
from fedloom.people.seen import seen_by_any
from fedloom.people.standing import middle_of, moved_by
from fedloom.people.truth_files import Truth
from fedloom.people.unpickle import read_pickle

__all__ = ["read_4d_dress"]

_MIDDLE_M = 0.95
"""How high the middle of a person is put: their feet come to the ground, to a few centimetres."""


def read_4d_dress(take: Path, frame: int, *, consent: bool, factor: int = 10) -> tuple[Capture, Truth]:
    """Return the photographs of a frame, of `factor` x `factor` pixels each, without parses, and the labelled scan.

    The world is moved so that the person stands at the origin, by the masks alone. `consent` is what the data's form
    says of the people. DataError for damaged files and for what is not laid out as above.
    """
    cameras, scan = _table(take / "Capture" / "cameras.pkl"), _scan(take, frame)
    there = tuple(
        _photo(take / "Capture", name, _camera_of(cameras, name, take), frame, factor) for name in sorted(cameras)
    )
    shift = np.array([0.0, _MIDDLE_M, 0.0]) - middle_of(there)
    photos = moved_by(there, shift)
    mesh = scan.moved(scan.vertices + shift)
    name = "-".join((*take.resolve().parts[-3:], f"f{frame:05d}"))
    capture = Capture(name, photos, "4d-dress", consent)
    return capture, Truth(mesh, seen_by_any(mesh, tuple(photo.camera for photo in photos)))


def _table(file: Path) -> Mapping[str, Any]:
    found = read_pickle(file)
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise DataError(f"{file}: found {type(found).__name__}, allowed is a table by names.")
    return found


def _array(table: Mapping[str, Any], key: str, shape: tuple[int | None, ...], where: str) -> NDArray[Any]:
    """Return an array of numbers under a key; None in the shape stands for any length."""
    if key not in table:
        raise DataError(f"{where}: found no '{key}', but {sorted(table)}; is it a file of 4D-DRESS?")
    array = np.asarray(table[key])
    fits = array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        wanted = ", ".join("N" if want is None else str(want) for want in shape)
        raise DataError(f"{where}: '{key}': found {array.dtype} {array.shape}, allowed are finite numbers [{wanted}].")
    return array


def _scan(take: Path, frame: int) -> Mesh:
    file, told = (
        take / "Meshes_pkl" / f"mesh-f{frame:05d}.pkl",
        take / "Semantic" / "labels" / f"label-f{frame:05d}.pkl",
    )
    table = _table(file)
    vertices_M3 = _array(table, "vertices", (None, 3), str(file)).astype(np.float64)
    faces_F3 = _array(table, "faces", (None, 3), str(file)).astype(np.int64)
    if len(faces_F3) and not 0 <= faces_F3.min() <= faces_F3.max() < len(vertices_M3):
        raise DataError(f"{file}: 'faces': found a vertex other than 0 to {len(vertices_M3) - 1}; copy the file anew.")
    labels_M = _array(_table(told), "scan_labels", (len(vertices_M3),), str(told)).astype(np.int64)
    return Mesh(vertices_M3, faces_F3, None, common(labels_M, "4d-dress", str(told)))


def _camera_of(cameras: Mapping[str, Any], name: str, take: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    where, entry = f"{take / 'Capture' / 'cameras.pkl'}: '{name}'", cameras[name]
    if not isinstance(entry, dict):
        raise DataError(f"{where}: found {type(entry).__name__}, allowed is a table of intrinsics and extrinsics.")
    return _array(entry, "intrinsics", (3, 3), where), _array(entry, "extrinsics", (3, 4), where)


def _photo(home: Path, name: str, numbers: tuple[NDArray[Any], NDArray[Any]], frame: int, factor: int) -> Photo:
    intrinsics_33, extrinsics_34 = (array.astype(np.float64) for array in numbers)
    file = home / name / "images" / f"capture-f{frame:05d}.png"
    rgb_HW3, mask_HW = read_picture(file, "RGB"), read_picture(home / name / "masks" / f"mask-f{frame:05d}.png", "L")
    height, width = mask_HW.shape
    if rgb_HW3.shape[:2] != (height, width) or height % factor or width % factor:
        raise DataError(
            f"{file}: found {rgb_HW3.shape[0]} x {rgb_HW3.shape[1]} with a mask of {height} x {width} (rows x "
            f"columns), allowed is one size that {factor} divides; choose another factor."
        )
    if not (mask_HW > 127).any():
        raise DataError(f"{file}: found a mask without a person; leave out the camera.")
    camera = Camera(intrinsics_33, extrinsics_34[:, :3], extrinsics_34[:, 3], height, width)
    smaller = camera.resized(height // factor, width // factor)
    return Photo(_smaller(rgb_HW3, factor), _smaller(mask_HW[:, :, None], factor)[:, :, 0], smaller)


def _smaller(pixels_HWC: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    return np.rint(averaged(pixels_HWC.astype(np.float32), factor)).astype(np.uint8)
