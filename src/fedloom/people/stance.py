"""How a person stands, in numbers, and a body that stands so."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedloom.people.body import Body
from fedloom.people.meshes import Floats, Mesh
from fedloom.people.skinning import skin_of

__all__ = ["Stance", "Stood", "shaped", "stood"]


@dataclass(frozen=True, eq=False)
class Stance:
    """Shape numbers [S], pose [J, 3] and translation [3]."""

    betas_S: Floats
    pose_J3: Floats
    translation_3: Floats

    @property
    def numbers(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three as tensors of 64 bits."""
        shape, pose, shift = (
            torch.from_numpy(np.asarray(one, np.float64)) for one in (self.betas_S, self.pose_J3, self.translation_3)
        )
        return shape, pose, shift


@dataclass(frozen=True, eq=False)
class Stood:
    """A body as it stands."""

    mesh: Mesh
    transforms_J44: Floats
    """What each joint does to a point of the rest pose, the translation with it."""

    def by(self, weights_NJ: Floats) -> Floats:
        """Return what carries points of these skinning weights [N, 4, 4]."""
        return np.einsum("nj,jab->nab", weights_NJ, self.transforms_J44)

    def carried(self, rest_N3: Floats, weights_NJ: Floats) -> Floats:
        """Return points [N, 3] of the rest pose, of these skinning weights, where the body has them."""
        by_N44 = self.by(weights_NJ)
        return (by_N44[:, :3, :3] @ rest_N3[:, :, None])[:, :, 0] + by_N44[:, :3, 3]


def stood(body: Body, stance: Stance, offsets_M3: Floats | None = None) -> Stood:
    """Return a body, offsets in the rest pose added, as a person stands."""
    skin, extra = skin_of(body, torch.float64), None if offsets_M3 is None else torch.from_numpy(offsets_M3)
    with torch.no_grad():
        betas_S, pose_J3, translation_3 = stance.numbers
        vertices_M3 = skin.posed(betas_S, pose_J3, translation_3, extra).vertices_M3.numpy()
        transforms_J44 = skin.carried(betas_S, pose_J3)[0].numpy().copy()
    transforms_J44[:, :3, 3] += stance.translation_3
    return Stood(Mesh(vertices_M3, body.faces_F3), transforms_J44)


def shaped(body: Body, betas_S: Floats) -> Mesh:
    """Return a body of a shape in the rest pose."""
    return Mesh(body.template_M3 + body.shape_directions_M3S[:, :, : len(betas_S)] @ betas_S, body.faces_F3)
