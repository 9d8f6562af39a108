"""A body of the package Anny (code Apache-2.0, assets CC0), reduced to SMPL's 24 joints.

Its bones of face, fingers and toes move with the joint that they hang on, its axes are turned, y up and face to +z, and
its arms, which hang, are held out sideways: poses mean the same on all bodies.
`pip install --no-deps anny roma` is enough for it.
"""

from typing import Any

import numpy as np
import torch

from fedloom.base.extras import library
from fedloom.base.plugin import Fraction, plugin
from fedloom.people.bodies.procedural import PARENTS, regressor_of
from fedloom.people.body import Body, BodyModel, refuse_odd
from fedloom.people.meshes import Floats
from fedloom.people.skinning import rotations

__all__ = ["PHENOTYPES", "AnnyBody"]

PHENOTYPES = ("gender", "age", "muscle", "weight", "height", "proportions")
"""The shape directions: one of each is a tenth of its phenotype's range."""
_STEP = 0.1
_WAY = np.array((0.51, -0.005, 0.005))
"""From the left shoulder to the left wrist, as the procedural body has them."""
_JOINTS = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle"),
    *("spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder"),
    *("right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand"),
)
"""What SMPL calls its joints."""
_BONES = {
    "pelvis": "root",
    "spine1": "spine04",
    "spine2": "spine02",
    "spine3": "spine01",
    "neck": "neck01",
    "head": "head",
    "hip": "upperleg01",
    "knee": "lowerleg01",
    "ankle": "foot",
    "foot": "toe3-1",
    "collar": "clavicle",
    "shoulder": "upperarm01",
    "elbow": "lowerarm01",
    "wrist": "wrist",
    "hand": "finger3-1",
}
"""The bone that begins at each joint, without its side."""


def _bone(joint: str) -> str:
    side, _, name = joint.rpartition("_")
    return _BONES[name] + {"": "", "left": ".L", "right": ".R"}[side]


def _joint_of_bones(labels: list[str], parents: list[int]) -> list[int]:
    """Return the joint that each bone moves with: its own, else that of all toes or fingers, else its parent's."""
    of_bone = {_bone(joint): number for number, joint in enumerate(_JOINTS)}
    result: list[int] = []
    for label, parent in zip(labels, parents, strict=True):
        of_kind = {"toe": "toe3-1", "fin": "finger3-1"}.get(label[:3], label.partition(".")[0])
        own = of_bone.get(of_kind + label[-2:] if label[-2:] in (".L", ".R") else label)
        result.append(own if own is not None else result[parent])
    return result


def _rest(model: Any, phenotype: dict[str, float]) -> tuple[Floats, Floats]:
    """Return the vertices [M, 3] and bones' heads [B, 3] in rest; Anny has z up and faces -y."""
    numbers = {name: torch.tensor([value], dtype=torch.float64) for name, value in phenotype.items()}
    with torch.no_grad():
        found = model(phenotype_kwargs=numbers)
    each = (found[key][0].double().numpy() for key in ("rest_vertices", "rest_bone_heads"))
    vertices_M3, heads_B3 = (at[:, [0, 2, 1]] * (1.0, 1.0, -1.0) for at in each)
    floor_3 = np.array([0.0, vertices_M3[:, 1].min(), 0.0])
    return vertices_M3 - floor_3, heads_B3 - floor_3


def _sideways(vertices_M3: Floats, joints_J3: Floats, weights_MJ: Floats) -> tuple[Floats, Floats]:
    """Return vertices and joints with both arms turned about their shoulders until they are held out."""
    for side, arm in ((1.0, [16, 18, 20, 22]), (-1.0, [17, 19, 21, 23])):
        shoulder_3 = joints_J3[arm[0]]
        held_3, wanted_3 = joints_J3[arm[2]] - shoulder_3, _WAY * (side, 1.0, 1.0)
        axis_3 = np.cross(held_3, wanted_3)
        size = float(np.linalg.norm(axis_3))
        angle_3 = axis_3 / max(size, 1e-12) * np.arctan2(size, held_3 @ wanted_3)
        turn_33 = rotations(torch.from_numpy(angle_3)[None])[0].numpy() - np.eye(3)
        share_M1 = weights_MJ[:, arm].sum(1, keepdims=True)
        vertices_M3 = vertices_M3 + share_M1 * ((vertices_M3 - shoulder_3) @ turn_33.T)
        share_J1 = np.isin(np.arange(len(joints_J3)), arm)[:, None]
        joints_J3 = joints_J3 + share_J1 * ((joints_J3 - shoulder_3) @ turn_33.T)
    return vertices_M3, joints_J3


def _weights(model: Any, owner_B: list[int], n_vertices: int) -> Floats:
    weights_MJ = np.zeros((n_vertices, len(_JOINTS)))
    bones_MW = model.vertex_bone_indices.numpy()
    rows_MW = np.broadcast_to(np.arange(n_vertices)[:, None], bones_MW.shape)
    np.add.at(weights_MJ, (rows_MW, np.array(owner_B)[bones_MW]), model.vertex_bone_weights.double().numpy())
    return weights_MJ / weights_MJ.sum(1, keepdims=True)


@plugin("anny")
class AnnyBody(BodyModel):
    """A body by phenotype; its six shape numbers change the phenotype in tenths."""

    needs = ("anny",)
    gender: Fraction = 0.5
    age: Fraction = 0.67
    muscle: Fraction = 0.5
    weight: Fraction = 0.5
    height: Fraction = 0.5
    proportions: Fraction = 0.5

    def load(self) -> Body:
        """Return the body; building Anny takes seconds."""
        model = library("anny").Anny()
        labels = [str(label) for label in model.bone_labels]
        own = [labels.index(_bone(joint)) for joint in _JOINTS]
        owner_B = _joint_of_bones(labels, [int(parent) for parent in model.bone_parents])
        middle = {name: float(vars(self)[name]) for name in PHENOTYPES}
        weights_MJ = _weights(model, owner_B, len(_rest(model, middle)[0]))

        def held(phenotype: dict[str, float]) -> tuple[Floats, Floats]:
            vertices_M3, heads_B3 = _rest(model, phenotype)
            return _sideways(vertices_M3, heads_B3[own], weights_MJ)

        vertices_M3, joints_J3 = held(middle)
        directions: list[Floats] = []
        for name in PHENOTYPES:
            low, high = (float(np.clip(middle[name] + step, 0, 1)) for step in (-_STEP, _STEP))
            change_M3 = held({**middle, name: high})[0] - held({**middle, name: low})[0]
            directions.append(change_M3 * (_STEP / (high - low)))
        body = Body(
            template_M3=vertices_M3,
            faces_F3=model.faces.numpy().astype(np.int64),
            shape_directions_M3S=np.stack(directions, axis=2),
            pose_directions_M3P=None,
            regressor_JM=regressor_of(vertices_M3, joints_J3),
            weights_MJ=weights_MJ,
            parents=PARENTS,
        )
        return refuse_odd(body, "anny")
