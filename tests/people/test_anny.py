import sys
import types
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import torch

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import lookup
from fedloom.people.bodies.anny import _JOINTS, PHENOTYPES, _bone
from fedloom.people.body import BodyModel
from fedloom.people.dressed import a_pose
from fedloom.people.skinning import skin_of


@pytest.fixture
def stand_in(monkeypatch):
    """A module with the parts of Anny that are read: the procedural body, z up, facing -y, with two further bones."""
    body = lookup(BodyModel, "procedural")().load()
    labels, parents = [_bone(name) for name in _JOINTS], list(body.parents)
    extra = ["metacarpal2.L", "toe1-1.R"]
    wrist, ankle = _JOINTS.index("left_wrist"), _JOINTS.index("right_ankle")
    asked, held = [], [body.template_M3, body.joints_J3]

    class Anny:
        def __init__(self):
            self.bone_labels, self.bone_parents = labels + extra, [*parents, wrist, ankle]
            self.faces = torch.from_numpy(body.faces_F3)
            indices, weights = np.tile(np.arange(26), (len(body.weights_MJ), 1)), np.zeros((len(body.weights_MJ), 26))
            weights[:, :24] = body.weights_MJ
            weights[:, 24], weights[:, wrist] = 0.25 * weights[:, wrist], 0.75 * weights[:, wrist]
            weights[:, 25] = weights[:, _JOINTS.index("right_foot")]
            weights[:, _JOINTS.index("right_foot")] = 0
            self.vertex_bone_indices, self.vertex_bone_weights = torch.from_numpy(indices), torch.from_numpy(weights)

        def __call__(self, phenotype_kwargs):
            asked.append({name: float(value) for name, value in phenotype_kwargs.items()})
            size = 0.5 + asked[-1]["height"]
            heads = np.concatenate([held[1], np.zeros((2, 3))])
            turned = [size * at[:, [0, 2, 1]] * (1, -1, 1) + (0, 0, 5) for at in (held[0], heads)]
            return dict(
                zip(("rest_vertices", "rest_bone_heads"), (torch.tensor(at)[None] for at in turned), strict=True)
            )

    module = types.ModuleType("anny")
    module.__spec__ = ModuleSpec("anny", None)
    module.Anny = Anny
    monkeypatch.setitem(sys.modules, "anny", module)
    return body, asked, held


def test_annys_body_is_turned_upright_and_its_bones_become_smpls_joints(stand_in):
    body, asked, _ = stand_in
    found = lookup(BodyModel, "anny")(gender=0.2).load()
    floor = [0, body.template_M3[:, 1].min(), 0]
    assert np.abs(found.template_M3 - (body.template_M3 - floor)).max() < 1e-9
    assert np.abs(found.joints_J3 - (body.joints_J3 - floor)).max() < 1e-9
    assert np.abs(found.weights_MJ - body.weights_MJ).max() < 1e-9  # the extra bones' weights went where they hang
    assert found.parents == body.parents and asked[0]["gender"] == 0.2 and set(asked[0]) == set(PHENOTYPES)


def test_arms_that_hang_are_held_out_and_all_else_stays(stand_in):
    body, _, held = stand_in
    skin, pose = skin_of(body, torch.float64), torch.from_numpy(a_pose(24))
    hanging = skin.posed(torch.zeros(10, dtype=torch.float64), pose, torch.zeros(3, dtype=torch.float64))
    held[:] = [hanging.vertices_M3.numpy(), hanging.joints_J3.numpy()]
    hands = body.weights_MJ[:, [22, 23]].sum(1) > 0.5
    assert held[0][hands][:, 1].max() < 1.1 < body.template_M3[hands][:, 1].min()
    found = lookup(BodyModel, "anny")().load()
    floor = [0, held[0][:, 1].min(), 0]
    assert np.abs(found.joints_J3 + floor - body.joints_J3).max() < 2e-3
    arms = body.weights_MJ[:, 16:].sum(1)
    rigid = (arms < 1e-3) | (arms > 0.999)  # others are bent at the shoulder twice, as all skinning does
    assert rigid.mean() > 0.8
    assert np.abs(found.template_M3 + floor - body.template_M3)[rigid].max() < 5e-3


def test_a_shape_number_is_a_tenth_of_a_phenotype_at_the_ends_of_its_range_too(stand_in):
    body, _, _ = stand_in
    height = PHENOTYPES.index("height")
    for at in (0.5, 1.0):
        found = lookup(BodyModel, "anny")(height=at).load()
        grown = (found.template_M3 + found.shape_directions_M3S[:, :, height])[:, 1].max() - found.template_M3[
            :, 1
        ].max()
        assert grown == pytest.approx(0.1 * np.ptp(body.template_M3[:, 1]), rel=1e-6)
        others = np.delete(found.shape_directions_M3S, height, axis=2)
        assert np.abs(others).max() < 1e-12


def test_odd_phenotypes_are_refused(stand_in):
    with pytest.raises(ConfigError, match=r"age: found 1\.5"):
        lookup(BodyModel, "anny")(age=1.5)
