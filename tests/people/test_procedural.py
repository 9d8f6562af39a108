import numpy as np
import pytest

from fedloom.people.bodies.procedural import PARENTS, Procedural, regressor_of
from fedloom.people.meshes import Mesh, components, edges, face_normals, is_edge_manifold

BODY = Procedural().load
SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
LEFT = (1, 4, 7, 10, 13, 16, 18, 20, 22)
RIGHT = (2, 5, 8, 11, 14, 17, 19, 21, 23)
MIDDLE = (0, 3, 6, 9, 12, 15)
NAMES = ("stature", "girth", "torso", "belly", "hips", "shoulders", "legs", "arms", "limbs", "head")


def moved(name):
    """What a direction moves [M, 3], metres."""
    return BODY().shape_directions_M3S[:, :, NAMES.index(name)]


def length(name):
    return np.linalg.norm(moved(name), axis=1)


def volume(vertices, faces=None):
    faces = BODY().faces_F3 if faces is None else faces
    first, second, third = (vertices[faces[:, corner]] for corner in range(3))
    return float((first * np.cross(second, third)).sum() / 6)


def test_joints_are_those_of_smpl():
    assert BODY().parents == PARENTS == SMPL_PARENTS
    assert (BODY().n_joints, BODY().weights_MJ.shape[1]) == (24, 24)


def test_skin_is_one_closed_surface_of_some_thousand_vertices():
    assert 8000 <= len(BODY().template_M3) <= 9000
    assert (edges(BODY().faces_F3)[1] == 2).all() and is_edge_manifold(BODY().faces_F3)
    assert set(components(BODY().faces_F3, len(BODY().template_M3)).tolist()) == {0}
    assert len(BODY().template_M3) - len(edges(BODY().faces_F3)[0]) + len(BODY().faces_F3) == 2  # a sphere's


def test_it_stands_as_tall_and_as_heavy_as_a_person_and_faces_outwards():
    assert BODY().template_M3[:, 1].min() == pytest.approx(0, abs=1e-9)
    assert 1.70 < BODY().template_M3[:, 1].max() < 1.80
    assert 0.06 <= volume(BODY().template_M3) <= 0.09  # positive: faces are counter-clockwise seen from outside
    front = BODY().template_M3[BODY().faces_F3].mean(1)
    chest = (np.abs(front[:, 0]) < 0.05) & (np.abs(front[:, 1] - 1.2) < 0.05) & (front[:, 2] > 0)
    normals = face_normals(Mesh(BODY().template_M3, BODY().faces_F3))[chest]
    assert chest.sum() > 5 and (normals[:, 2] > 0.5).all()


def test_toes_point_to_where_the_face_looks():
    feet = BODY().template_M3[BODY().template_M3[:, 1] < 0.05]
    assert feet[:, 2].max() > 0.12 > -feet[:, 2].min()


def test_joints_are_symmetric():
    joints = BODY().joints_J3
    assert np.abs(joints[list(LEFT)] - joints[list(RIGHT)] * (-1, 1, 1)).max() < 1e-9
    assert np.abs(joints[list(MIDDLE), 0]).max() < 1e-9
    assert (joints[list(LEFT), 0] > 0).all()


def test_skin_is_symmetric_but_for_its_cells():
    from scipy.spatial import cKDTree

    gap = cKDTree(BODY().template_M3).query(BODY().template_M3 * (-1, 1, 1))[0]
    assert gap.max() < 0.017


def test_joints_lie_inside_the_limb_that_they_carry():
    carried = BODY().weights_MJ.argmax(1)
    for joint in (1, 4, 16, 18, 15):
        own = BODY().template_M3[carried == joint]
        assert len(own) > 50 and np.linalg.norm(own - BODY().joints_J3[joint], axis=1).min() < 0.12


def test_regressor_is_affine_exact_and_of_near_vertices():
    assert np.abs(BODY().regressor_JM.sum(1) - 1).max() < 1e-9
    drawn = np.random.default_rng(0)
    points, wanted = drawn.normal(0, 1, (200, 3)), drawn.normal(0, 0.2, (5, 3))
    rows = regressor_of(points, wanted)
    turn, shift = drawn.normal(0, 1, (3, 3)), drawn.normal(0, 1, 3)
    assert np.abs(rows @ (points @ turn + shift) - (wanted @ turn + shift)).max() < 1e-9
    assert ((rows != 0).sum(1) <= 60).all()
    away = np.linalg.norm(points - wanted[0], axis=1)
    assert set(np.flatnonzero(rows[0])) <= set(np.argsort(away)[:60])


def test_weights_are_shares():
    assert BODY().weights_MJ.min() >= 0 and np.abs(BODY().weights_MJ.sum(1) - 1).max() < 1e-9
    left = BODY().template_M3[:, 0] > 0.3  # a left hand is not carried by the right side
    assert BODY().weights_MJ[left][:, list(RIGHT)].max() < 1e-4


def test_stature_makes_taller_and_lengths_of_legs_lift_what_is_above():
    x, y, _ = BODY().template_M3.T
    grown = BODY().template_M3 + moved("stature")
    assert np.ptp(grown[:, 1]) > np.ptp(y) + 0.05
    assert np.abs(moved("legs")[y > 0.95, 1] - 0.025).max() < 1e-9 and moved("legs")[y < 0.1, 1].max() < 0.003
    assert np.abs(moved("legs")[:, [0, 2]]).max() == 0
    out = moved("arms")[:, 0] * np.sign(x)
    assert out[np.abs(x) > 0.8].min() > 0.015 and np.abs(moved("arms")[np.abs(x) < 0.15]).max() == 0


@pytest.mark.parametrize("name", ["girth", "torso", "belly", "hips", "limbs", "head"])
def test_what_makes_stouter_adds_volume(name):
    assert volume(BODY().template_M3 + moved(name)) > volume(BODY().template_M3) * 1.001


def test_local_directions_stay_where_their_names_say():
    x, y, z = BODY().template_M3.T
    assert length("head")[y < 1.3].max() < 1e-3 < length("head")[y > 1.7].min()
    assert length("torso")[np.abs(x) > 0.4].max() < 1e-3 and length("torso")[(y > 1.1) & (y < 1.3)].min() > 0.008
    assert length("limbs")[(y > 1.1) & (y < 1.3) & (np.abs(x) < 0.1)].max() < 1e-3
    assert length("limbs")[np.abs(x) > 0.5].min() > 0.004
    assert length("hips")[(y > 1.25) | (y < 0.6)].max() < 1e-3
    assert (
        length("belly")[z < 0].max() == 0 and moved("belly")[(np.abs(y - 1.06) < 0.02) & (z > 0.08)][:, 2].min() > 0.01
    )
    wide = moved("shoulders")[:, 0] * np.sign(x)
    assert wide[(np.abs(x) > 0.2) & (y > 1.35)].min() > 0.011 and np.abs(moved("shoulders")[y < 1.0]).max() == 0


def test_it_is_made_once_and_cells_decide_how_finely():
    assert Procedural().load() is BODY()
    coarse = Procedural(cell_m=0.03).load()
    assert 2000 < len(coarse.template_M3) < 4000 and (edges(coarse.faces_F3)[1] == 2).all()
    assert np.abs(coarse.joints_J3 - BODY().joints_J3).max() < 0.02
    assert volume(coarse.template_M3, coarse.faces_F3) == pytest.approx(volume(BODY().template_M3), rel=0.03)


def test_made_anew_it_is_the_same():
    from fedloom.people.bodies import procedural

    again = procedural._made.__wrapped__(0.03)
    known = Procedural(cell_m=0.03).load()
    for name, array in vars(known).items():
        assert np.array_equal(array, vars(again)[name]) or name in ("pose_directions_M3P", "parents")
