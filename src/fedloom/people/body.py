"""What a body model is: a template, directions of shape and pose, joints and the weights by which they carry it."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedloom.base.errors import DataError
from fedloom.base.extras import library
from fedloom.base.plugin import Family
from fedloom.people.array_files import write_arrays
from fedloom.people.meshes import Floats, Ints

__all__ = ["BODY_KEYS", "Body", "BodyModel", "body_of", "refuse_odd", "write_body"]

_ROOTS = (-1, 2**32 - 1)
"""As SMPL's files tell that a joint has no parent."""
_AXES = {"v_template": 2, "f": 2, "shapedirs": 3, "J_regressor": 2, "weights": 2, "kintree_table": 2, "posedirs": 3}
"""How many axes the arrays of a file have; the last is not needed."""
BODY_KEYS = frozenset(_AXES)
"""What is read of a file."""
_LARGEST, _OFF = 2.0**40, 1e-4


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
    odd = body.faces_F3[(body.faces_F3 < 0) | (body.faces_F3 >= n_vertices)]
    if len(odd):
        raise DataError(f"{where}: f names vertex {odd[0]}, allowed are 0 to {n_vertices - 1}; get the file again.")
    if body.weights_MJ.min() < -_OFF:
        raise DataError(f"{where}: weights holds {body.weights_MJ.min():.2g}, allowed is 0 to 1; get the file again.")
    for name, array in (("weights", body.weights_MJ), ("J_regressor", body.regressor_JM)):
        off = float(np.abs(array.sum(1) - 1).max())
        if off > (_OFF if name == "weights" else 1e-2):
            raise DataError(f"{where}: a row of {name} sums to 1 +- {off:.2g}, allowed is 1; get the file again.")
    if body.parents[0] != -1 or any(not 0 <= parent < at for at, parent in enumerate(body.parents) if at):
        raise DataError(
            f"{where}: kintree_table names parents {list(body.parents)}, allowed is a parent before its child."
        )
    return body


def body_of(found: Mapping[str, Any], where: str) -> Body:
    """Return the body of arrays under SMPL's names; DataError, naming `where`, for a missing or an odd one."""
    missing = [key for key in _AXES if key not in found and key != "posedirs"]
    if missing:
        raise DataError(f"{where}: found no {', '.join(missing)}, needed are {', '.join(_AXES)}; is it a body model?")
    arrays = {key: _numbers(found[key], key, where) for key in _AXES if key in found}
    parents = _whole(arrays["kintree_table"], "kintree_table", where)[0].tolist()
    body = Body(
        template_M3=arrays["v_template"],
        faces_F3=_whole(arrays["f"], "f", where),
        shape_directions_M3S=arrays["shapedirs"],
        pose_directions_M3P=arrays.get("posedirs"),
        regressor_JM=arrays["J_regressor"],
        weights_MJ=arrays["weights"],
        parents=tuple(-1 if parent in _ROOTS else parent for parent in parents),
    )
    return refuse_odd(body, where)


def _numbers(value: Any, name: str, where: str) -> Floats:
    """Return an array of numbers with as many axes as it should have, a sparse one filled."""
    full = value.toarray() if library("scipy.sparse", "people").issparse(value) else value
    if not isinstance(full, np.ndarray) or full.dtype.kind not in "fiu" or full.ndim != _AXES[name] or not full.size:
        told = f"{full.dtype} {list(full.shape)}" if isinstance(full, np.ndarray) else f"a {type(full).__name__}"
        raise DataError(
            f"{where}: {name}: found {told}, allowed are some numbers along {_AXES[name]} axes; get the file again."
        )
    return full.astype(np.float64)


def _whole(numbers: Floats, name: str, where: str) -> Ints:
    odd = numbers[~(np.abs(numbers) < _LARGEST) | (numbers != np.floor(numbers))]
    if len(odd):
        raise DataError(f"{where}: {name}: found {odd[0]:g}, allowed are whole numbers; get the file again.")
    return numbers.astype(np.int64)


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
    write_arrays(file, arrays)
