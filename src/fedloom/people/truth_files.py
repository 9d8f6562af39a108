"""What is true of a synthetic or scanned person, on disk: for measuring alone; no reader of training data opens it.

A folder `truth/` beside a capture's pictures holds one `truth.npz` of plain arrays: `scene.vertices`, `scene.faces`,
`scene.labels`, `scene.colours` where there are colours, the same of `body` and of `garment.NAME`, `visible`, and, where
they are known, `betas`, `pose`, `translation` and `offsets.NAME`.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError
from fedloom.base.files import atomic_folder
from fedloom.people.array_files import read_arrays
from fedloom.people.measured import KnownSurface
from fedloom.people.meshes import Floats, Mesh

__all__ = ["Truth", "read_truth", "read_visible", "write_truth"]

_FILE = "truth.npz"
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Truth:
    """What is true of a person in the pose of the photographs."""

    scene: Mesh
    """All that a camera may see, with the class of each vertex."""
    visible_F: NDArray[np.bool_]
    """Which of its faces at least one camera sees."""
    body: Mesh | None = None
    """The body, whole under the clothes; a scan has none."""
    garments: Mapping[str, Mesh] = field(default_factory=dict[str, Mesh])
    """Surfaces of the garments by name."""
    betas: Floats | None = None
    """Shape of the body."""
    pose: Floats | None = None
    """Rotations of its joints, [J, 3]."""
    translation: Floats | None = None
    """Where it stands, [3], metres."""
    offsets: Mapping[str, Floats] = field(default_factory=dict[str, Floats])
    """By garment, how far its vertices lie from the body's in the rest pose, [M, 3], metres."""


def write_truth(truth: Truth, folder: Path) -> None:
    """Write what is true of a person into a folder, whole or not at all, in place of an older one."""
    arrays: Arrays = {"visible": truth.visible_F, **_of_mesh("scene", truth.scene)}
    arrays |= _of_mesh("body", truth.body) if truth.body else {}
    for name, mesh in truth.garments.items():
        arrays |= _of_mesh(f"garment.{name}", mesh)
    numbers = {"betas": truth.betas, "pose": truth.pose, "translation": truth.translation}
    arrays |= {name: array for name, array in numbers.items() if array is not None}
    arrays |= {f"offsets.{name}": array for name, array in truth.offsets.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    with atomic_folder(folder) as new:
        (new / _FILE).write_bytes(buffer.getvalue())


def _of_mesh(name: str, mesh: Mesh) -> Arrays:
    parts = {"vertices": mesh.vertices, "faces": mesh.faces, "colours": mesh.colours, "labels": mesh.labels}
    return {f"{name}.{key}": array for key, array in parts.items() if array is not None}


def read_truth(folder: Path) -> Truth:
    """Return what is true of a person; DataError for a damaged folder, MissingFileError where there is none."""
    file = folder / _FILE
    arrays = read_arrays(file)
    names = [key.removeprefix("garment.").removesuffix(".faces") for key in arrays if key.endswith(".faces")]
    scene = _mesh(arrays, "scene", file)
    return Truth(
        scene,
        _visible(arrays, scene, file),
        _mesh(arrays, "body", file) if "body" in names else None,
        {name: _mesh(arrays, f"garment.{name}", file) for name in names if name not in ("scene", "body")},
        arrays.get("betas"),
        arrays.get("pose"),
        arrays.get("translation"),
        {key.removeprefix("offsets."): array for key, array in arrays.items() if key.startswith("offsets.")},
    )


def read_visible(folder: Path) -> KnownSurface:
    """Return the surface that a person is measured by, and what of it a camera sees; refuses as `read_truth`."""
    file = folder / _FILE
    arrays = read_arrays(file)
    scene = _mesh(arrays, "scene", file)
    return KnownSurface(scene, _visible(arrays, scene, file))


def _mesh(arrays: Arrays, name: str, file: Path) -> Mesh:
    vertices_M3, faces_F3 = _of(arrays, f"{name}.vertices", "f", file), _of(arrays, f"{name}.faces", "iu", file)
    for key, array in (("vertices", vertices_M3), ("faces", faces_F3)):
        if array.ndim != 2 or array.shape[1] != 3:
            raise DataError(f"{file}: {name}.{key}: found shape {array.shape}, allowed are rows of 3; write it anew.")
    if not np.isfinite(vertices_M3).all() or (faces_F3 < 0).any() or (faces_F3 >= len(vertices_M3)).any():
        raise DataError(
            f"{file}: {name}: found a vertex that is not finite, or a face of one that is not there; write it anew."
        )
    return Mesh(vertices_M3, faces_F3, arrays.get(f"{name}.colours"), arrays.get(f"{name}.labels"))


def _visible(arrays: Arrays, scene: Mesh, file: Path) -> NDArray[np.bool_]:
    visible_F = _of(arrays, "visible", "b", file)
    if visible_F.shape != (len(scene.faces),):
        raise DataError(f"{file}: visible: found {visible_F.shape} of {len(scene.faces)} faces; write it anew.")
    return visible_F


def _of(arrays: Arrays, name: str, kinds: str, file: Path) -> NDArray[Any]:
    if name not in arrays or arrays[name].dtype.kind not in kinds:
        found = arrays[name].dtype if name in arrays else "none"
        raise DataError(
            f"{file}: {name}: found {found}, allowed is an array of kind {' or '.join(kinds)}; write it anew."
        )
    return arrays[name]
