"""What a body model is: a template, directions of shape and pose, joints and the weights by which they carry it."""

import io
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError
from fedloom.base.files import write_bytes
from fedloom.base.plugin import Family

__all__ = ["Body", "BodyModel", "body_of", "refuse_odd", "write_body"]

_ROOTS = (-1, 2**32 - 1)
"""As SMPL's files tell that a joint has no parent."""
Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Body:
    """A body in its rest pose, y upwards, facing +z, in metres; S directions of shape, P of pose."""

    template_M3: Floats
    faces_F3: Ints
    shape_directions_M3S: Floats
    pose_directions_M3P: Floats | None
    """By the entries of the rotations of all joints but the root, less those of the identity: P = 9 (J - 1)."""
    regressor_JM: Floats
    weights_MJ: Floats
    parents: tuple[int, ...]
    """-1 for the root."""

    @property
    def n_joints(self) -> int:
        """How many joints there are."""
        return len(self.parents)

    @property
    def joints_J3(self) -> Floats:
        """Where they are in the rest pose of the mean shape."""
        return self.regressor_JM @ self.template_M3


class BodyModel(Family):
    """A way to get a body."""

    folder = "fedloom.people.bodies"

    @abstractmethod
    def load(self) -> Body:
        """Return the body; DataError for a file that is none."""


def refuse_odd(body: Body, where: str) -> Body:
    """Return the body; DataError, naming `where`, for shapes that do not fit, odd numbers, weights or parents."""
    n_vertices, n_joints = len(body.template_M3), len(body.parents)
    wanted = {
        "v_template": (body.template_M3, (n_vertices, 3)),
        "f": (body.faces_F3, (len(body.faces_F3), 3)),
        "shapedirs": (body.shape_directions_M3S, (n_vertices, 3, body.shape_directions_M3S.shape[-1])),
        "J_regressor": (body.regressor_JM, (n_joints, n_vertices)),
        "weights": (body.weights_MJ, (n_vertices, n_joints)),
    }
    if body.pose_directions_M3P is not None:
        wanted["posedirs"] = body.pose_directions_M3P, (n_vertices, 3, 9 * (n_joints - 1))
    for name, (array, shape) in wanted.items():
        if array.shape != shape:
            raise DataError(f"{where}: {name} has shape {list(array.shape)}, allowed is {list(shape)}.")
        if not np.isfinite(array).all():
            raise DataError(f"{where}: {name} holds a number that is not finite; get the file again.")
    if body.faces_F3.min() < 0 or body.faces_F3.max() >= n_vertices:
        raise DataError(f"{where}: f names vertex {body.faces_F3.max()}, there are {n_vertices}.")
    for name, array in (("weights", body.weights_MJ), ("J_regressor", body.regressor_JM)):
        off = float(np.abs(array.sum(1) - 1).max())
        if off > (1e-4 if name == "weights" else 1e-2):
            raise DataError(f"{where}: a row of {name} sums to 1 +- {off:.2g}, allowed is 1; get the file again.")
    if body.parents[0] != -1 or any(not 0 <= parent < at for at, parent in enumerate(body.parents) if at):
        raise DataError(
            f"{where}: kintree_table names parents {list(body.parents)}, allowed is a parent before its child."
        )
    return body


def body_of(found: Mapping[str, Any], where: str) -> Body:
    """Return the body of arrays under SMPL's names; DataError, naming `where`, for a missing or an odd one."""
    needed = ("v_template", "f", "shapedirs", "J_regressor", "weights", "kintree_table")
    missing = [key for key in needed if key not in found]
    if missing:
        raise DataError(f"{where}: found no {', '.join(missing)}, needed are {', '.join(needed)}; is it a body model?")
    parents = np.asarray(found["kintree_table"])[0].astype(np.int64).tolist()
    regressor: Any = found["J_regressor"]
    body = Body(
        template_M3=np.asarray(found["v_template"], np.float64),
        faces_F3=np.asarray(found["f"]).astype(np.int64),
        shape_directions_M3S=np.asarray(found["shapedirs"], np.float64),
        pose_directions_M3P=np.asarray(found["posedirs"], np.float64) if "posedirs" in found else None,
        regressor_JM=np.asarray(regressor if isinstance(regressor, np.ndarray) else regressor.toarray(), np.float64),
        weights_MJ=np.asarray(found["weights"], np.float64),
        parents=tuple(-1 if parent in _ROOTS else parent for parent in parents),
    )
    return refuse_odd(body, where)


def write_body(body: Body, file: Path) -> None:
    """Write a body under SMPL's names, as arrays alone."""
    arrays: dict[str, Any] = {
        "v_template": body.template_M3,
        "f": body.faces_F3,
        "shapedirs": body.shape_directions_M3S,
        "J_regressor": body.regressor_JM,
        "weights": body.weights_MJ,
        "kintree_table": np.stack([np.array(body.parents), np.arange(body.n_joints)]),
    }
    if body.pose_directions_M3P is not None:
        arrays["posedirs"] = body.pose_directions_M3P
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    write_bytes(file, packed.getvalue())
