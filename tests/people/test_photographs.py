from dataclasses import replace

import numpy as np
import pytest

from fedloom.base.errors import ConfigError
from fedloom.people.cameras import ring
from fedloom.people.meshes import joined
from fedloom.people.photographs import Light, photographed
from fedloom.people.seen import seen_by_any
from support.balls import ball
from support.capsules import photographed as traced
from support.people_runs import person, surface

pytestmark = pytest.mark.slow


def plain(face_N, barycentric_N3):
    return np.full((len(face_N), 3), 0.6)


FLAT = Light(ambient=1.0, cast=(1.0, 0.5, 1.2), background=(0.1, 0.2, 0.3))


def test_a_ball_is_a_disk_with_a_soft_edge_in_the_colours_of_surface_and_background():
    cameras = ring(3, 64, 64)
    made = photographed(ball(), plain, None, cameras, FLAT)
    # The tangent cone of a ball of 0.5 m, 3 m away, on the focal length of the ring.
    radius = cameras[0].focal * 0.5 / np.sqrt(9 - 0.25)
    assert made.mask_VHW.sum((1, 2)) / 255 == pytest.approx(np.pi * radius**2, rel=0.01)
    assert set(np.unique(made.mask_VHW)) == {0, 64, 128, 191, 255}
    share = made.mask_VHW[..., None] / 255
    right = 255 * (share * np.array([0.6, 0.3, 0.72]) + (1 - share) * np.array([0.1, 0.2, 0.3]))
    assert np.abs(made.rgb_VHW3 - right).max() <= 1
    assert ((made.labels_VHW == 1) == (made.mask_VHW > 128)).all()


def test_light_falls_by_the_cosine():
    light = Light(yaw_deg=0.0, height_deg=0.0, ambient=0.25)
    camera = ring(1, 65, 65, elevations=(0.0,))
    row = photographed(ball(), plain, None, camera, light).rgb_VHW3[0, 32] / 255
    across = (np.arange(65) + 0.5 - 32.5) / camera[0].focal  # the ray's slope; the ball is 3 m away
    inside = np.abs(across) < 0.14
    slope = across[inside]
    near = (3 - np.sqrt(9 - (1 + slope**2) * (9 - 0.25))) / (1 + slope**2)
    np.testing.assert_allclose(row[inside, 0], 0.6 * (0.25 + 0.75 * (3 - near) / 0.5), atol=0.01)
    behind = photographed(ball(), plain, None, camera, replace(light, yaw_deg=180.0)).rgb_VHW3[0, 32]
    assert (behind[inside] == round(255 * 0.15)).all()


def test_a_nearer_layer_hides_what_lies_behind_and_labels_follow():
    inner, outer = ball(0.4, n=16), ball(0.5, n=16)
    scene = joined(inner, outer)
    labels_F = np.repeat([1, 4], [len(inner.faces), len(outer.faces)])
    made = photographed(scene, plain, labels_F, ring(4, 48, 48), FLAT)
    assert set(np.unique(made.labels_VHW)) == {0, 4}
    assert not made.seen_F[: len(inner.faces)].any() and made.seen_F[len(inner.faces) :].mean() > 0.75
    below_F = scene.vertices[scene.faces].max(1)[:, 1] < 0.42  # 2 cm of its end, where no camera looks up
    assert below_F.sum() > 20 and not made.seen_F[below_F].any()
    assert (made.seen_F == seen_by_any(scene, ring(4, 48, 48))).all()


def test_a_mesh_of_capsules_looks_as_its_sphere_tracing():
    bones = person(2, 96)[1]
    cameras = ring(2, 96, 96)
    made = photographed(surface(2, 96).mesh, plain, None, cameras, Light())
    for view, camera in enumerate(cameras):
        right = traced(camera, bones, 2).mask.astype(float) / 255
        found = made.mask_VHW[view] / 255
        assert np.abs(found - right).sum() / right.sum() < 0.03


def test_odd_lights_are_refused():
    for odd in ({"cast": (1.0, 1.0)}, {"background": (2.0, 0.0, 0.0)}, {"ambient": 1.5}):
        with pytest.raises(ConfigError, match=next(iter(odd))):
            Light(**odd)
