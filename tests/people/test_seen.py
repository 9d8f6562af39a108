import numpy as np
import pytest

from fedloom.people.cameras import ring
from fedloom.people.meshes import face_normals, joined
from fedloom.people.raster import rasterise
from fedloom.people.seen import faces_seen, seen_by_any
from support.balls import ball

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("n", [12, 40, 150])
def test_of_a_ball_the_side_towards_the_camera_is_seen_however_small_its_faces(n):
    mesh, (camera,) = ball(0.5, n=n), ring(1, 128, 128, elevations=(10.0,))
    seen_F = faces_seen(mesh, camera, rasterise(mesh, camera, supersample=2))
    way_F3 = camera.centre - mesh.vertices[mesh.faces].mean(1)
    cosine_F = (face_normals(mesh) * way_F3).sum(1) / np.linalg.norm(way_F3, axis=1)
    assert seen_F[cosine_F > 0.21].all()  # a raster of 256 rows alone hits half of the smallest
    assert not seen_F[cosine_F < 0].any()


@pytest.mark.parametrize("gap_m", [0.006, 0.01, 0.03])
def test_what_a_layer_hides_is_not_seen(gap_m):
    inner, outer = ball(0.4, n=60), ball(0.4 + gap_m, n=90)
    seen_F = seen_by_any(joined(inner, outer), ring(6, 128, 128))
    assert not seen_F[: len(inner.faces)].any()


def test_what_lies_outside_the_picture_or_behind_the_camera_is_not_seen():
    (camera,) = ring(1, 64, 64)
    behind, beside = ball(0.3, middle=(0, 0.9, 6)), ball(0.3, middle=(2.5, 0.9, 0))
    assert not seen_by_any(joined(behind, beside), (camera,)).any()
