from dataclasses import replace

import numpy as np
import pytest

from fedloom.base.plugin import lookup
from fedloom.people.body import BodyModel
from fedloom.people.dressed import dressed
from fedloom.people.free_topology import bound, draped
from fedloom.people.layer_metrics import edge_strain, penetration
from fedloom.people.meshes import face_normals, vertex_normals
from fedloom.people.nearest import NearestPoints
from fedloom.people.penetration import Collider, relieved
from fedloom.people.stance import Stance, shaped

pytestmark = pytest.mark.slow

STEP = np.array([0.1, 0.2, 0.3])


@pytest.fixture(scope="module")
def body():
    return lookup(BodyModel, "procedural")().load()


@pytest.fixture(scope="module")
def people(body):
    return [dressed(body, "skirts", n, tops=("tee",), bottoms=("skirt",)) for n in range(4)]


def stance(person):
    return Stance(person.betas_S, person.pose_J3, person.translation_3)


def test_a_bound_skirt_comes_back_exactly(body, people):
    for person in people:
        skirt = person.garment_meshes["skirt"]
        binding = bound(skirt, body, stance(person))
        assert np.abs(draped(binding, body, stance(person)).vertices - skirt.vertices).max() < 1e-9
        assert np.abs(binding.places_M3.sum(1) - 1).max() < 1e-9 and binding.places_M3.min() > -1e-6
        # Nothing of its true weights was told: what it finds in rest is near the truth.
        own = person.garments["skirt"]
        true = own.rest.vertices + own.shapes_N3S @ person.betas_S
        away = np.linalg.norm(binding.rest.vertices - true, axis=1)
        assert away.mean() < 0.01 and away.max() < 0.04


def test_it_follows_the_body_where_it_turns_and_goes(body, people):
    person, turn = people[0], np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    skirt, by = person.garment_meshes["skirt"], stance(person)
    pose = by.pose_J3.copy()
    pose[0] = 0
    upright = draped(bound(skirt, body, by), body, replace(by, pose_J3=pose)).vertices
    pose[0, 1] = np.pi / 2
    there = replace(by, pose_J3=pose, translation_3=by.translation_3 + STEP)
    root = (body.regressor_JM @ shaped(body, by.betas_S).vertices)[0] + by.translation_3
    moved = draped(bound(skirt, body, by), body, there).vertices
    assert np.abs(moved - ((upright - root) @ turn.T + root + STEP)).max() < 1e-9


def test_on_another_person_it_fits_and_is_not_crumpled(body, people):
    for person, other in zip(people, people[1:] + people[:1], strict=True):
        skirt = person.garment_meshes["skirt"]
        binding = bound(skirt, body, stance(person))
        there = relieved(draped(binding, body, stance(other)), [Collider(other.body_mesh)])
        assert penetration(there.vertices, NearestPoints(other.body_mesh)).percent <= 0.1
        assert edge_strain(skirt, there.vertices) < 0.15
        smooth = vertex_normals(there)[there.faces].mean(1)
        assert np.einsum("fd,fd->f", face_normals(there), smooth).min() > 0.5
        low, high = (mesh.vertices[:, 1].max() for mesh in (there, other.body_mesh))
        assert 0.45 < low / high < 0.72
