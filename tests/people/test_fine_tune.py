import numpy as np
import pytest

from fedloom.people.cut import cut_layer
from fedloom.people.fine_tune import FineTuning, fine_tuned
from fedloom.people.layer_metrics import roughness_mm, seam_chamfer_cm
from fedloom.people.loops import faired_seams, smoothed_loop, smoothed_loops
from fedloom.people.meshes import Mesh, boundary_loops, vertex_normals
from fedloom.people.nearest import NearestPoints
from fedloom.people.scene import scene_of
from fedloom.people.surface import hull_surface
from support.people_runs import person

pytestmark = pytest.mark.slow


def tube(radius=0.2, rows=60, around=120, height=0.6):
    row, at = np.meshgrid(np.linspace(0, height, rows), np.arange(around) * 2 * np.pi / around, indexing="ij")
    points = np.stack([radius * np.sin(at), row, radius * np.cos(at)], axis=-1).reshape(-1, 3)
    here = np.arange((rows - 1) * around).reshape(rows - 1, around)
    there = np.roll(here, -1, axis=1)
    faces = [np.stack([here, there, here + around], -1), np.stack([there, there + around, here + around], -1)]
    return Mesh(points, np.concatenate([one.reshape(-1, 3) for one in faces]))


def stairs(mesh):
    """The lower half of a tube, its upper edge a staircase as labels of whole triangles leave it."""
    wave = 0.3 + 0.012 * np.sign(np.sin(30 * np.arctan2(mesh.vertices[:, 0], mesh.vertices[:, 2])))
    return cut_layer(mesh, wave - mesh.vertices[:, 1]).mesh


def upper(mesh):
    return next(loop for loop in boundary_loops(mesh.faces) if mesh.vertices[loop][:, 1].mean() > 0.2)


def test_a_staircase_becomes_a_circle_that_is_as_high_and_as_wide():
    whole = tube()
    layer = stairs(whole)
    loop = upper(layer)
    done = smoothed_loops(layer, [loop], NearestPoints(whole)).vertices[loop]
    assert roughness_mm(done) < 0.35 * roughness_mm(layer.vertices[loop])
    assert done[:, 1].mean() == pytest.approx(0.3, rel=0.01)
    assert np.hypot(done[:, 0], done[:, 2]).mean() == pytest.approx(0.2, rel=0.01)


def test_a_circle_stays_as_it_is():
    angle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    circle = np.stack([0.2 * np.sin(angle), np.full(100, 0.3), 0.2 * np.cos(angle)], axis=1)
    normals = circle * (5, 0, 5)
    assert np.abs(smoothed_loop(circle, normals) - circle).max() < 2e-3


def test_seams_are_faired_between_edge_and_inside():
    layer = stairs(tube())
    loop = upper(layer)
    rough = layer.vertices.copy()
    rough += np.random.default_rng(0).normal(0, 0.004, rough.shape) * (rough[:, 1:2] > 0.26)
    rough[loop] = layer.vertices[loop]
    faired = faired_seams(layer.moved(rough), [loop])
    radius = [np.hypot(one[:, 0], one[:, 2]) for one in (rough, faired.vertices)]
    near = layer.vertices[:, 1] > 0.275
    assert np.abs(radius[1] - 0.2)[near].mean() < 0.6 * np.abs(radius[0] - 0.2)[near].mean()
    assert np.array_equal(faired.vertices[loop], layer.vertices[loop])
    assert np.array_equal(faired.vertices[layer.vertices[:, 1] < 0.2], rough[layer.vertices[:, 1] < 0.2])


@pytest.fixture(scope="module")
def cut():
    capture, _ = person(2, 96, 6)
    scene = scene_of(capture)
    whole = hull_surface(scene, 0.02)
    drawn = np.random.default_rng(0)
    lead = 0.2 - np.abs(whole.vertices[:, 1] - 1.15) + drawn.normal(0, 0.02, len(whole.vertices))
    return capture, scene, whole, cut_layer(whole, lead).mesh


def test_edges_become_smoother_and_stay_where_they_belong(cut):
    capture, scene, whole, layer = cut
    told = fine_tuned(layer, whole, scene, [photo.camera for photo in capture.photos])
    assert told.rough_after_mm < 0.6 * told.rough_before_mm
    clean = cut_layer(whole, 0.2 - np.abs(whole.vertices[:, 1] - 1.15))
    right = [clean.mesh.vertices[loop] for loop in clean.loops]
    ends = [[one.vertices[loop] for loop in boundary_loops(one.faces)] for one in (layer, told.mesh)]
    before, after = (seam_chamfer_cm(end, right) for end in ends)
    assert after <= before


def test_outlines_move_to_the_silhouettes(cut):
    """A layer blown up by 8 mm comes back by more than a third, one that fits stays."""
    capture, scene, whole, layer = cut
    cameras = [photo.camera for photo in capture.photos]
    plain = FineTuning(steps=0)
    base = fine_tuned(layer, whole, scene, cameras, plain).mesh
    blown = base.moved(base.vertices + 0.008 * vertex_normals(base))
    fitting = FineTuning(steps=60, laplacian=1.0)
    back = fine_tuned(blown, whole.moved(whole.vertices), scene, cameras, fitting).mesh
    distance = NearestPoints(whole)
    inner = np.abs(base.vertices[:, 1] - 1.15) < 0.1
    off = [distance(one.vertices[inner]).distance_N.mean() for one in (blown, back)]
    assert off[1] < off[0]
