"""What is true of a synthetic or scanned person, on disk: for measuring alone; no reader of training data opens it.

A folder `truth/` beside a capture's pictures holds one `truth.npz` of plain arrays: `scene.vertices`, `scene.faces`,
`scene.labels`, `scene.colours` where there are colours, the same of `body` and of `garment.NAME`, `visible`, and, where
they are known, `betas`, `pose`, `translation` and `offsets.NAME`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError
from fedloom.people.array_files import Arrays, array_of, arrays_of, mesh_of, read_arrays, write_arrays
from fedloom.people.measured import KnownSurface
from fedloom.people.meshes import Floats, Mesh

__all__ = ["Truth", "read_truth", "read_visible", "write_truth"]

_FILE = "truth.npz"


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
    arrays: Arrays = {"visible": truth.visible_F, **arrays_of("scene", truth.scene)}
    arrays |= arrays_of("body", truth.body) if truth.body else {}
    for name, mesh in truth.garments.items():
        arrays |= arrays_of(f"garment.{name}", mesh)
    numbers = {"betas": truth.betas, "pose": truth.pose, "translation": truth.translation}
    arrays |= {name: array for name, array in numbers.items() if array is not None}
    arrays |= {f"offsets.{name}": array for name, array in truth.offsets.items()}
    write_arrays(folder / _FILE, arrays)


def read_truth(folder: Path) -> Truth:
    """Return what is true of a person; DataError for a damaged folder, MissingFileError where there is none."""
    file = folder / _FILE
    arrays = read_arrays(file)
    names = [key.removeprefix("garment.").removesuffix(".faces") for key in arrays if key.endswith(".faces")]
    scene = mesh_of(arrays, "scene", file)
    return Truth(
        scene,
        _visible(arrays, scene, file),
        mesh_of(arrays, "body", file) if "body" in names else None,
        {name: mesh_of(arrays, f"garment.{name}", file) for name in names if name not in ("scene", "body")},
        arrays.get("betas"),
        arrays.get("pose"),
        arrays.get("translation"),
        {key.removeprefix("offsets."): array for key, array in arrays.items() if key.startswith("offsets.")},
    )


def read_visible(folder: Path) -> KnownSurface:
    """Return the surface that a person is measured by, and what of it a camera sees; refuses as `read_truth`."""
    file = folder / _FILE
    arrays = read_arrays(file)
    scene = mesh_of(arrays, "scene", file)
    return KnownSurface(scene, _visible(arrays, scene, file))


def _visible(arrays: Arrays, scene: Mesh, file: Path) -> NDArray[np.bool_]:
    visible_F = array_of(arrays, "visible", "b", file)
    if visible_F.shape != (len(scene.faces),):
        raise DataError(f"{file}: visible: found {visible_F.shape} of {len(scene.faces)} faces; write it anew.")
    return visible_F
