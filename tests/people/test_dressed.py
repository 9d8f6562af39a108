from dataclasses import replace

import numpy as np
import pytest

from fedloom.people.bodies.procedural import Procedural
from fedloom.people.dressed import N_TONES, a_pose, dressed
from fedloom.people.labels import HAIR, LABELS, LOWER, SHOES, SKIN, UPPER
from fedloom.people.meshes import Mesh
from fedloom.people.nearest import NearestPoints
from fedloom.people.stance import Stance, stood
from fedloom.people.textures import KINDS, drawn_texture

pytestmark = pytest.mark.slow

BODY = Procedural().load


@pytest.fixture(scope="module")
def worn():
    return dressed(BODY(), "dressed", 0, tops=["tee"], bottoms=["trousers"], textures=["checks"])


def places(scene, count, seed=0):
    drawn = np.random.default_rng(seed)
    return drawn.integers(0, len(scene.faces), count), drawn.dirichlet(np.ones(3), count)


def test_classes_are_where_they_belong(worn):
    scene = worn.scene()
    labels = worn.labels_of(np.arange(len(scene.faces)))
    assert set(labels.tolist()) == {SKIN, HAIR, SHOES, UPPER, LOWER}
    n_body, n_lower = len(BODY().faces_F3), len(worn.garments["trousers"].rest.faces)
    assert list(worn.garments) == ["trousers", "tee"]  # the lower is on first
    assert set(labels[n_body : n_body + n_lower].tolist()) == {LOWER}
    assert set(labels[n_body + n_lower :].tolist()) == {UPPER}
    height = BODY().template_M3[:, 1]
    assert height[worn.body_labels_M == SHOES].max() < 0.1 and height[worn.body_labels_M == HAIR].min() > 1.5
    assert scene.labels.max() < len(LABELS) and len(scene.labels) == len(scene.vertices)


def test_body_stands_as_skinning_has_it(worn):
    by = Stance(worn.betas_S, worn.pose_J3, worn.translation_3)
    assert np.abs(stood(BODY(), by).mesh.vertices - worn.body_mesh.vertices).max() < 1e-9
    assert worn.body_mesh.vertices[:, 1].min() == pytest.approx(0, abs=1e-9)  # on the floor


def test_cloth_moves_with_the_skin_below_it(worn):
    cloth, one = worn.garment_meshes["tee"], worn.garments["tee"]
    lengths = np.linalg.norm(cloth.vertices - worn.body_mesh.vertices[one.on_body_N], axis=1)
    assert np.abs(lengths - np.linalg.norm(one.offsets_N3, axis=1)).max() < 0.02
    assert (NearestPoints(worn.body_mesh)(cloth.vertices).distance_N > 0.004).mean() > 0.95


@pytest.mark.parametrize("texture", KINDS)
def test_colours_are_colours(texture):
    one = dressed(BODY(), "dressed", texture, textures=[texture])
    face_N, share_N3 = places(one.scene(), 3000)
    shade = one.shade(face_N, share_N3)
    assert shade.shape == (3000, 3) and shade.min() >= 0 and shade.max() <= 1
    top = shade[one.labels_of(face_N) == UPPER]
    assert len(np.unique(top.round(6), axis=0)) == (1 if texture == "plain" else 2)


def test_a_place_keeps_its_colour_in_another_pose_and_shape(worn):
    face_N, share_N3 = places(worn.scene(), 2000)
    raised = worn.pose_J3.copy()
    raised[16, 2] += 1.0
    moved = replace(worn, pose_J3=raised, betas_S=-worn.betas_S)
    assert np.abs(moved.scene().vertices - worn.scene().vertices).max() > 0.2
    assert np.array_equal(moved.shade(face_N, share_N3), worn.shade(face_N, share_N3))


def test_same_names_same_person_and_other_names_another(worn):
    again = dressed(BODY(), "dressed", 0, tops=["tee"], bottoms=["trousers"], textures=["checks"])
    other = dressed(BODY(), "dressed", 1, tops=["tee"], bottoms=["trousers"], textures=["checks"])
    face_N, share_N3 = places(worn.scene(), 500)
    assert np.array_equal(again.scene().vertices, worn.scene().vertices)
    assert np.array_equal(again.shade(face_N, share_N3), worn.shade(face_N, share_N3))
    assert not np.array_equal(other.betas_S, worn.betas_S) and not np.array_equal(other.pose_J3, worn.pose_J3)


def test_a_dress_is_worn_alone_and_tones_are_the_asked_ones():
    one = dressed(BODY(), "dressed", 2, tops=["dress"])
    assert list(one.garments) == ["dress"]
    light, dark = (dressed(BODY(), "dressed", 3, tones=[tone]).textures["skin"].first_3 for tone in (0, N_TONES - 1))
    assert (light > dark + 0.2).all()


def test_people_stand_about_the_a_pose_in_shapes_of_two_deviations_at_most():
    people = [dressed(BODY(), "crowd", number, bottoms=["shorts"]) for number in range(6)]
    betas, turns = np.stack([one.betas_S for one in people]), np.stack([one.pose_J3 for one in people]) - a_pose(24)
    assert np.abs(betas).max() <= 2 and betas.std() > 0.5
    assert np.abs(turns).max() < 0.6 and turns[:, [16, 17]].std() > 0.05
    assert (turns[:, [4, 5], 0] >= 0).all()  # knees bend one way


def test_arms_of_the_a_pose_hang():
    hands = stood(BODY(), Stance(np.zeros(10), a_pose(24), np.zeros(3))).mesh.vertices
    far = np.abs(BODY().template_M3[:, 0]) > 0.8
    assert hands[far, 1].max() < 1.1 and (hands[far, 0] * BODY().template_M3[far, 0] > 0).all()


def test_textures_have_two_colours_apart_and_odd_kinds_are_refused():
    from fedloom.base.errors import ConfigError

    one = drawn_texture(np.random.default_rng(0), ("stripes",))
    assert np.abs(one.first_3 - one.second_3).min() >= 0.25 and min(one.second_3.min(), 1 - one.second_3.max()) >= 0
    points = np.array([(0.0, one.period_m / 4, 0.0), (0.3, 3 * one.period_m / 4, 0.1), (0, 5 * one.period_m / 4, 9)])
    assert np.array_equal(one(points), np.stack([one.first_3, one.second_3, one.first_3]))
    for kinds in ((), ("tartan",)):
        with pytest.raises(ConfigError, match="allowed are some of plain, stripes, checks"):
            drawn_texture(np.random.default_rng(0), kinds)


def test_scene_is_body_and_clothes_as_one(worn):
    scene = worn.scene()
    pieces = [worn.body_mesh, *worn.garment_meshes.values()]
    assert len(scene.faces) == sum(len(one.faces) for one in pieces)
    last = Mesh(scene.vertices, scene.faces[-len(pieces[-1].faces) :])
    assert np.array_equal(last.vertices[last.faces], pieces[-1].vertices[pieces[-1].faces])
