"""Distances of surfaces against brute force, spheres of known radii, and what is refused."""

import numpy as np
import pytest

from fedloom.base.errors import DataError
from fedloom.people.meshes import Mesh, areas, part
from fedloom.people.nearest import NearestPoints, draw_points, triangle_feet
from fedloom.people.surface_metrics import surface_errors
from support.shapes3d import sphere

pytestmark = pytest.mark.slow


def brute_force(points_N3, mesh):
    """The nearest distance to any triangle, of all of them."""
    corners = mesh.vertices[mesh.faces]
    return np.array(
        [
            np.linalg.norm(triangle_feet(np.repeat(p[None], len(corners), 0), corners) - p, axis=1).min()
            for p in points_N3
        ]
    )


def test_the_foot_of_a_triangle_is_the_best_of_a_fine_grid():
    random = np.random.default_rng(0)
    corners, points = random.normal(size=(40, 3, 3)), random.normal(size=(40, 3)) * 2
    first, second = np.meshgrid(np.linspace(0, 1, 201), np.linspace(0, 1, 201))
    inside = first + second <= 1
    weights = np.stack([first[inside], second[inside], 1 - first[inside] - second[inside]], 1)
    grid = np.einsum("gc,ncd->ngd", weights, corners)
    best = np.linalg.norm(grid - points[:, None], axis=2).min(1)
    exact = np.linalg.norm(triangle_feet(points, corners) - points, axis=1)
    assert (exact <= best + 1e-12).all() and (best - exact < 0.02).all()


def test_nearest_points_agree_with_all_triangles_near_and_far():
    mesh = sphere(0.3, 24)
    random = np.random.default_rng(1)
    near = mesh.vertices[random.integers(0, len(mesh.vertices), 150)] + random.normal(size=(150, 3)) * 0.01
    far = random.normal(size=(150, 3))
    for points, allowed in ((near, 2e-5), (far, 1e-4)):
        feet = NearestPoints(mesh)(points)
        np.testing.assert_allclose(feet.distance_N, brute_force(points, mesh), atol=allowed)
        assert np.allclose(np.linalg.norm(points - feet.points_N3, axis=1), feet.distance_N)


def test_the_sign_tells_inside_from_outside():
    mesh = sphere(0.3, 24)
    points = np.random.default_rng(2).normal(size=(500, 3)) * 0.25
    away = np.linalg.norm(points, axis=1) - 0.3
    sure = np.abs(away) > 0.005
    assert (np.sign(NearestPoints(mesh).signed(points)[0]) == np.sign(away))[sure].all()


def test_values_of_vertices_are_carried_linearly():
    mesh = sphere(0.3, 24)
    feet = NearestPoints(mesh)(np.random.default_rng(3).normal(size=(200, 3)))
    np.testing.assert_allclose(NearestPoints(mesh).carried(feet, mesh.vertices), feet.points_N3, atol=1e-9)


def test_points_are_drawn_by_area_and_by_name():
    mesh = sphere(0.3, 24)
    points, faces = draw_points(mesh, 50_000, 1)
    assert np.abs(np.bincount(faces, minlength=len(mesh.faces)) - 50_000 * areas(mesh) / areas(mesh).sum()).max() <= 2
    assert (draw_points(mesh, 100, 1)[0] == draw_points(mesh, 100, 1)[0]).all()
    assert (draw_points(mesh, 100, 1)[0] != draw_points(mesh, 100, 2)[0]).any()
    assert np.abs(points.mean(0)).max() < 1e-3


def test_spheres_differ_by_their_radii_in_both_directions():
    errors = surface_errors(sphere(0.31, 50), sphere(0.30, 50))
    assert errors.acc_cm == pytest.approx(1.0, abs=0.02) and errors.comp_cm == pytest.approx(1.0, abs=0.02)
    assert errors.chamfer_cm == pytest.approx((errors.acc_cm + errors.comp_cm) / 2)
    assert errors.floor_cm < 1e-3 and errors.normal_consistency > 0.99
    assert surface_errors(sphere(0.3, 24), sphere(0.3, 24)).fscore == 1


def test_a_missing_half_is_charged_to_completeness_alone():
    whole = sphere(0.3, 40)
    upper, _ = part(whole, whole.faces[whole.vertices[whole.faces][..., 1].mean(1) > 0])
    errors = surface_errors(upper, whole)
    assert errors.acc_cm < 1e-3 and errors.comp_cm > 5
    seen = whole.vertices[whole.faces][..., 1].mean(1) > 0
    restricted = surface_errors(upper, whole, visible_F=seen)
    assert restricted.comp_cm < 1e-3 and restricted.fscore == 1


def test_what_nobody_saw_is_not_charged_either():
    truth = sphere(0.3, 40)
    bulged = Mesh(truth.vertices * np.where(truth.vertices[:, 1:2] < -0.05, 1.3, 1.0), truth.faces)
    seen = truth.vertices[truth.faces][..., 1].mean(1) > 0.05
    assert surface_errors(bulged, truth).acc_cm > 1
    assert surface_errors(bulged, truth, visible_F=seen).acc_cm < 0.1


@pytest.mark.parametrize(
    ("visible", "told"),
    [(lambda n: np.ones(3, bool), "another mesh"), (lambda n: np.zeros(n, bool), "0 faces visible")],
)
def test_wrong_masks_are_refused(visible, told):
    one = sphere(0.3, 24)
    with pytest.raises(DataError, match=told):
        surface_errors(one, one, visible_F=visible(len(one.faces)))


def test_an_empty_mesh_is_refused():
    with pytest.raises(DataError, match="empty"):
        draw_points(Mesh(np.zeros((0, 3)), np.zeros((0, 3), int)), 10)
