import numpy as np
import pytest

from fedloom.people.bodies.procedural import Procedural
from fedloom.people.cut import cut_layer, margins, without_specks
from fedloom.people.dressed import dressed
from fedloom.people.labels import LABELS, LOWER, UPPER
from fedloom.people.layer_metrics import roughness_mm
from fedloom.people.meshes import Mesh, areas, edges, is_edge_manifold
from support.shapes3d import sphere


@pytest.fixture(scope="module")
def ball():
    return sphere(0.5, 40)


def test_a_cap_has_the_area_that_geometry_says_and_a_round_edge(ball):
    layer = cut_layer(ball, ball.vertices[:, 1] - 0.2)
    assert areas(layer.mesh).sum() == pytest.approx(2 * np.pi * 0.5 * 0.3, rel=0.02)
    (loop,) = layer.loops
    assert np.abs(layer.mesh.vertices[loop][:, 1] - 0.2).max() < 0.004  # but near corners, where it is a little off
    assert is_edge_manifold(layer.mesh.faces) and areas(layer.mesh).min() > 1e-8


def test_what_is_cut_and_what_is_left_share_their_edge(ball):
    lead = ball.vertices[:, 0] + 0.3 * ball.vertices[:, 1]
    one, other = cut_layer(ball, lead), cut_layer(ball, np.nextafter(-lead, -1))
    whole = areas(one.mesh).sum() + areas(other.mesh).sum()
    assert whole == pytest.approx(areas(ball).sum(), rel=1e-6)
    rims = [mesh.mesh.vertices[mesh.loops[0]] for mesh in (one, other)]
    assert np.allclose(np.sort(rims[0], axis=0), np.sort(rims[1], axis=0), atol=1e-9)


def test_values_of_the_surface_are_carried_to_the_cut(ball):
    layer = cut_layer(ball, ball.vertices[:, 1])
    assert np.allclose(layer.carried(ball.vertices), layer.mesh.vertices)
    assert np.allclose(layer.carried(ball.vertices[:, 0]), layer.mesh.vertices[:, 0])


def test_a_part_that_is_removed_is_gone(ball):
    """A published extraction keeps each face that touches a chosen vertex, and ignores the mask that it was given."""
    layer = cut_layer(ball, 0.2 - ball.vertices[:, 1])
    assert layer.mesh.vertices[:, 1].max() < 0.2 + 0.004
    assert cut_layer(ball, np.full(len(ball.vertices), -1.0)) is None
    assert cut_layer(ball, ball.vertices[:, 1] - 0.496) is None  # too little of it
    whole = cut_layer(ball, np.full(len(ball.vertices), 1.0))
    assert np.array_equal(whole.mesh.vertices, ball.vertices) and not whole.loops


def test_leads_of_zero_leave_no_face_without_area(ball):
    lead = np.round(ball.vertices[:, 1] * 20) / 20
    layer = cut_layer(ball, lead)
    assert areas(layer.mesh).min() > 1e-9 and is_edge_manifold(layer.mesh.faces)


def test_specks_are_absorbed_on_both_sides(ball):
    lead = ball.vertices[:, 1].copy()
    up, down = ball.vertices[:, 1] > 0.1, ball.vertices[:, 1] < -0.1
    drawn = np.random.default_rng(0)
    lead[up & (drawn.random(len(lead)) < 0.03)] *= -1
    lead[down & (drawn.random(len(lead)) < 0.03)] *= -1
    assert len(cut_layer(ball, lead).loops) > 3
    (loop,) = cut_layer(ball, without_specks(ball, lead)).loops
    assert roughness_mm(cut_layer(ball, without_specks(ball, lead)).mesh.vertices[loop]) < 5


def test_two_parts_are_kept_and_a_third_is_not():
    far = [sphere(radius, 24).vertices + np.array((place, 0, 0)) for place, radius in ((0, 0.3), (2, 0.2), (4, 0.1))]
    faces = sphere(0.3, 24).faces
    mesh = Mesh(np.concatenate(far), np.concatenate([faces + at * len(far[0]) for at in range(3)]))
    layer = cut_layer(mesh, np.ones(len(mesh.vertices)))
    assert layer.mesh.vertices[:, 0].max() < 2.5 and len(layer.mesh.faces) == 2 * len(faces)


@pytest.mark.parametrize(("top", "bottom", "loops"), [("tee", "trousers", (4, 3)), ("tee", "skirt", (4, 2))])
def test_clothes_of_a_person_have_the_loops_of_their_kind(top, bottom, loops):
    """On one closed surface, as photographs give it: the body with the clothes' classes by nearest vertex."""
    from scipy.spatial import cKDTree

    worn = dressed(Procedural().load(), "cut", tops=(top,), bottoms=(bottom,))
    body = worn.body_mesh
    odds = np.zeros((len(body.vertices), len(LABELS)))
    odds[:, 1] = 0.5
    for mesh in worn.garment_meshes.values():
        label, limit = int(mesh.labels[0]), 0.035
        near, _ = cKDTree(mesh.vertices).query(body.vertices)
        odds[:, label] = (
            np.where(near < limit, 1 + label * 0.1, -1) if label == LOWER else np.where(near < limit, 2, -1)
        )
    found = [cut_layer(body, without_specks(body, margins(odds, label))) for label in (UPPER, LOWER)]
    assert len(found[0].loops) == loops[0]
    if bottom == "trousers":
        assert len(found[1].loops) == loops[1]
    assert all(is_edge_manifold(one.mesh.faces) and (edges(one.mesh.faces)[1] <= 2).all() for one in found)
