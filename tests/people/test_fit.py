import numpy as np
import pytest

from fedloom.people.bodies.procedural import Procedural
from fedloom.people.cameras import ring
from fedloom.people.dressed import dressed
from fedloom.people.fit import Fitting, fitted
from fedloom.people.labels import SKIN
from fedloom.people.layer_metrics import signed_bias_mm
from fedloom.people.meshes import part
from fedloom.people.nearest import NearestPoints, draw_points
from fedloom.people.seen import seen_by_any

pytestmark = pytest.mark.slow

BODY = Procedural().load


def person(number, wrong=0.0):
    """What eight cameras see of a person, with 4 mm of noise, and which of the body lies under clothes."""
    worn = dressed(BODY(), "fit", number)
    scene = worn.scene()
    visible = part(scene, scene.faces[seen_by_any(scene, ring(8, 128, 128))])[0]
    points, face = draw_points(visible, 6000, "fit", number)
    drawn = np.random.default_rng(number)
    labels = visible.labels[visible.faces[face, 0]].copy()
    odd = drawn.random(len(labels)) < wrong
    labels[odd] = drawn.choice([1, 4, 5], odd.sum())
    covered = np.zeros(len(BODY().template_M3), bool)
    for one in worn.garments.values():
        covered[one.on_body_N[one.on_body_N >= 0]] = True
    return worn, points + drawn.normal(0, 0.004, points.shape), labels, covered


def off(found, worn, covered):
    return signed_bias_mm(found.mesh.vertices[covered], NearestPoints(worn.body_mesh))


@pytest.fixture(scope="module")
def one():
    worn, points, labels, covered = person(1)
    return worn, points, labels, covered, fitted(points, labels, BODY())


def test_a_body_under_clothes_is_found_to_a_centimetre(one):
    worn, *_, covered, found = one
    distance, bias = off(found, worn, covered)
    assert distance <= 10 and abs(bias) <= 4
    assert np.linalg.norm(found.mesh.vertices - worn.body_mesh.vertices, axis=1).mean() < 0.04
    assert found.ease_m.min() > 0.005 and found.ease_m.max() < 0.04


@pytest.mark.slow
def test_one_surface_for_all_swallows_the_clothes(one):
    """The control: the same fit with everything taken for skin has the body as thick as its clothes."""
    worn, points, labels, covered, found = one
    single = fitted(points, np.full_like(labels, SKIN), BODY())
    assert off(single, worn, covered)[1] > off(found, worn, covered)[1] + 4


def test_seen_skin_takes_offsets_and_what_is_hidden_does_not(one):
    *_, covered, found = one
    length = np.linalg.norm(found.skin_offsets_M3, axis=1)
    assert length.max() <= 0.02 + 1e-9 and length[covered].mean() < 0.25 * length[~covered].mean()


@pytest.mark.slow
def test_the_same_points_give_the_same_body(one):
    _, points, labels, _, found = one
    again = fitted(points, labels, BODY(), Fitting())
    assert np.array_equal(again.pose_J3, found.pose_J3)


def failed(found, worn):
    """Whether a limb is somewhere else: a vertex that is further off than an upper arm is thick."""
    return np.linalg.norm(found.mesh.vertices - worn.body_mesh.vertices, axis=1).max() > 0.15


@pytest.mark.slow
def test_limbs_do_not_get_lost():
    """A person on whom a start too high and a second stage at full rate from its first step lost an arm."""
    worn, points, labels, covered = person(4)
    found = fitted(points, labels, BODY())
    assert not failed(found, worn) and off(found, worn, covered)[0] <= 10


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [0.0, 0.1])
def test_no_pose_of_six_fails(wrong):
    told = []
    for number in range(6):
        worn, points, labels, covered = person(number, wrong)
        found = fitted(points, labels, BODY())
        told.append(off(found, worn, covered))
        assert not failed(found, worn)
    assert max(distance for distance, _ in told) <= 10 and abs(np.mean(told, axis=0)[1]) <= 4
