"""Linear blend skinning, differentiable: from shape, pose and offsets to a posed skin."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedloom.people.body import Body

__all__ = ["Posed", "Skin", "rotations", "skin_of"]


@dataclass(frozen=True, eq=False)
class Posed:
    """A posed body."""

    vertices_M3: Tensor
    joints_J3: Tensor
    transforms_M44: Tensor
    """What carries each vertex from the rest pose, its offsets among it, to where it is."""


@dataclass(frozen=True, eq=False)
class Skin:
    """A body as tensors; `posed` is M(beta, theta, D) = W(T + B_S(beta) + B_P(theta) + D, J(beta), theta, weights).

    Formula and order are SMPL's (Loper et al. 2015, equations 2 to 9), with offsets D as in SMPL-D.
    """

    template_M3: Tensor
    shape_directions_M3S: Tensor
    pose_directions_M3P: Tensor | None
    regressor_JM: Tensor
    weights_MJ: Tensor
    parents: tuple[int, ...]

    def posed(self, betas_S: Tensor, pose_J3: Tensor, translation_3: Tensor, offsets_M3: Tensor | None = None) -> Posed:
        """Return the skin of a shape in a pose: an axis with an angle in radians for each joint."""
        shaped_M3 = self.shaped(betas_S)
        carried_J44, joints_J3 = self.carried(betas_S, pose_J3)
        if self.pose_directions_M3P is not None:
            bent_J33 = rotations(pose_J3[1:]) - torch.eye(3, dtype=pose_J3.dtype)
            shaped_M3 = shaped_M3 + self.pose_directions_M3P @ bent_J33.flatten()
        if offsets_M3 is not None:
            shaped_M3 = shaped_M3 + offsets_M3
        transforms_M44 = torch.einsum("mj,jab->mab", self.weights_MJ, carried_J44)
        moved_M3 = (transforms_M44[:, :3, :3] @ shaped_M3[:, :, None])[:, :, 0] + transforms_M44[:, :3, 3]
        return Posed(moved_M3 + translation_3, joints_J3 + translation_3, transforms_M44)

    def shaped(self, betas_S: Tensor) -> Tensor:
        """Return the rest pose of a shape [M, 3]."""
        return self.template_M3 + self.shape_directions_M3S[:, :, : len(betas_S)] @ betas_S

    def joints(self, betas_S: Tensor) -> Tensor:
        """Return the joints [J, 3] of a shape in the rest pose."""
        return self.regressor_JM @ self.shaped(betas_S)

    def carried(self, betas_S: Tensor, pose_J3: Tensor) -> tuple[Tensor, Tensor]:
        """Return what carries each joint's rest surroundings [J, 4, 4], and where the joints of a shape come to lie."""
        joints_J3 = self.joints(betas_S)
        return _chained(rotations(pose_J3), joints_J3, self.parents)


def skin_of(body: Body, dtype: torch.dtype = torch.float32) -> Skin:
    """Return a body as tensors."""

    def told(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(dtype)

    pose = None if body.pose_directions_M3P is None else told(body.pose_directions_M3P)
    return Skin(
        told(body.template_M3),
        told(body.shape_directions_M3S),
        pose,
        told(body.regressor_JM),
        told(body.weights_MJ),
        body.parents,
    )


def rotations(pose_J3: Tensor) -> Tensor:
    """Return rotations [J, 3, 3] of axes with angles: the exponential of their cross products, smooth at zero too."""
    x, y, z = pose_J3.unbind(1)
    nothing = torch.zeros_like(x)
    cross = torch.stack([nothing, -z, y, z, nothing, -x, -y, x, nothing], dim=1).reshape(-1, 3, 3)
    return torch.linalg.matrix_exp(cross)


def _chained(turns_J33: Tensor, joints_J3: Tensor, parents: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    turned, placed = [turns_J33[0]], [joints_J3[0]]
    for joint, parent in enumerate(parents[1:], start=1):
        turned.append(turned[parent] @ turns_J33[joint])
        placed.append(placed[parent] + turned[parent] @ (joints_J3[joint] - joints_J3[parent]))
    turned_J33, placed_J3 = torch.stack(turned), torch.stack(placed)
    shift_J31 = placed_J3[:, :, None] - turned_J33 @ joints_J3[:, :, None]
    last = turned_J33.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(parents), 1, 4)
    return torch.cat([torch.cat([turned_J33, shift_J31], dim=2), last], dim=1), placed_J3
