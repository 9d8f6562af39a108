import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedloom.people.bodies.procedural import Procedural
from fedloom.people.body import Body
from fedloom.people.skinning import rotations, skin_of

JOINTS, VERTICES, SHAPES = 4, 7, 3


def made_up(pose_directions=True):
    """A body of seven points on four joints in a chain with a fork, its numbers drawn."""
    drawn = np.random.default_rng(3)
    weights = drawn.uniform(0, 1, (VERTICES, JOINTS))
    regressor = drawn.uniform(0, 1, (JOINTS, VERTICES))
    return Body(
        template_M3=drawn.normal(0, 1, (VERTICES, 3)),
        faces_F3=np.array([(0, 1, 2), (3, 4, 5)]),
        shape_directions_M3S=drawn.normal(0, 0.3, (VERTICES, 3, SHAPES)),
        pose_directions_M3P=drawn.normal(0, 0.1, (VERTICES, 3, 9 * (JOINTS - 1))) if pose_directions else None,
        regressor_JM=regressor / regressor.sum(1, keepdims=True),
        weights_MJ=weights / weights.sum(1, keepdims=True),
        parents=(-1, 0, 1, 1),
    )


def numbers(seed=0):
    drawn = np.random.default_rng(seed)
    return drawn.normal(0, 1, SHAPES), drawn.normal(0, 1, (JOINTS, 3)), drawn.normal(0, 1, 3)


def turned(vector, axis_angle):
    """Rodrigues' formula for one vector: nothing of matrices."""
    angle = math.hypot(*axis_angle)
    axis = np.asarray(axis_angle) / angle
    return (
        vector * math.cos(angle)
        + np.cross(axis, vector) * math.sin(angle)
        + axis * (axis @ vector) * (1 - math.cos(angle))
    )


def matrix_of(axis_angle):
    return np.stack([turned(way, axis_angle) for way in np.eye(3)], axis=1)


def by_loops(body, betas, pose, shift, offsets):
    """SMPL-D point by point: up the chain of joints, turning about each on the way to the root."""
    shaped = [point + sum(b * body.shape_directions_M3S[m, :, s] for s, b in enumerate(betas))
              for m, point in enumerate(body.template_M3)]  # fmt: skip
    joints = [sum(row[m] * shaped[m] for m in range(VERTICES)) for row in body.regressor_JM]
    bent = [entry for joint in range(1, JOINTS) for entry in (matrix_of(pose[joint]) - np.eye(3)).ravel()]
    result = []
    for m in range(VERTICES):
        rest = shaped[m] + offsets[m]
        if body.pose_directions_M3P is not None:
            rest = rest + sum(body.pose_directions_M3P[m, :, p] * value for p, value in enumerate(bent))
        place = np.zeros(3)
        for joint in range(JOINTS):
            at, up = rest, joint
            while up != -1:
                at = joints[up] + turned(at - joints[up], pose[up])
                up = body.parents[up]
            place = place + body.weights_MJ[m, joint] * at
        result.append(place + shift)
    return np.array(result)


def posed(body, betas, pose, shift, offsets=None):
    told = [torch.from_numpy(one) for one in (betas, pose, shift)]
    return skin_of(body, torch.float64).posed(*told, None if offsets is None else torch.from_numpy(offsets))


def test_no_shape_and_no_pose_are_the_template():
    body = Procedural().load()
    found = posed(body, np.zeros(10), np.zeros((24, 3)), np.zeros(3))
    assert np.abs(found.vertices_M3.numpy() - body.template_M3).max() < 1e-12
    assert np.abs(found.joints_J3.numpy() - body.joints_J3).max() < 1e-12


@pytest.mark.parametrize("pose_directions", [True, False])
def test_skin_is_that_of_a_loop_over_points_and_joints(pose_directions):
    body, offsets = made_up(pose_directions), np.random.default_rng(9).normal(0, 0.1, (VERTICES, 3))
    found = posed(body, *numbers(), offsets)
    assert np.abs(found.vertices_M3.numpy() - by_loops(body, *numbers(), offsets)).max() < 1e-12


def test_pose_directions_read_rotations_row_by_row_without_the_root():
    """One direction moves one point by one entry of one joint's rotation, less the identity's."""
    body, pose = made_up(), np.zeros((JOINTS, 3))
    pose[0], pose[2] = (0.3, 0.2, 0.1), (0.0, 0.0, 0.5)
    directions = np.zeros_like(body.pose_directions_M3P)
    directions[5, 0, 9 + 1] = 1.0  # joint 2 is the second but the root; its entry in row 0, column 1 is -sin
    found = posed(replace(body, pose_directions_M3P=directions), np.zeros(SHAPES), pose, np.zeros(3))
    still = posed(replace(body, pose_directions_M3P=None), np.zeros(SHAPES), pose, np.zeros(3))
    carried = found.transforms_M44[:, :3, :3].numpy()
    moved = np.linalg.solve(carried, (found.vertices_M3 - still.vertices_M3).numpy()[:, :, None])[:, :, 0].round(12)
    assert moved[5, 0] == pytest.approx(-math.sin(0.5)) and np.count_nonzero(moved) == 1


def test_the_root_alone_turns_everything_about_itself():
    body, pose, shift = made_up(pose_directions=False), np.zeros((JOINTS, 3)), np.array((1.0, 2.0, 3.0))
    pose[0] = (0.0, math.pi / 2, 0.0)
    root = body.joints_J3[0]
    away = body.template_M3 - root
    wanted = np.stack([away[:, 2], away[:, 1], -away[:, 0]], axis=1) + root + shift
    assert np.abs(posed(body, np.zeros(SHAPES), pose, shift).vertices_M3.numpy() - wanted).max() < 1e-12


def test_rotations_are_rotations_by_rodrigues():
    pose = np.random.default_rng(1).normal(0, 1.5, (20, 3))
    found = rotations(torch.from_numpy(pose)).numpy()
    assert np.abs(found - np.stack([matrix_of(one) for one in pose])).max() < 1e-12


@pytest.mark.parametrize("pose", [np.zeros((JOINTS, 3)), numbers(2)[1]], ids=["at rest", "bent"])
def test_slopes_are_right_at_rest_too(pose):
    skin, (betas, _, shift) = skin_of(made_up(), torch.float64), numbers(1)
    told = [torch.from_numpy(one.copy()).requires_grad_() for one in (betas, pose, shift, np.zeros((VERTICES, 3)))]
    assert torch.autograd.gradcheck(lambda *given: skin.posed(*given).vertices_M3, told)


def test_fewer_shape_numbers_leave_the_other_directions_alone():
    betas, pose, shift = numbers()
    few, padded = posed(made_up(), betas[:1], pose, shift), posed(made_up(), betas * (1, 0, 0), pose, shift)
    assert torch.equal(few.vertices_M3, padded.vertices_M3)
