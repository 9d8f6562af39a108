from dataclasses import replace

import numpy as np
import pytest

from fedloom.base.errors import DataError
from fedloom.people.cameras import Camera, looking_at, nearest_point, refuse_odd_cameras, ring


def changed(cameras, **changes):
    return [replace(one, **{key: change(vars(one)[key]) for key, change in changes.items()}) for one in cameras]


def refused(cameras, *words):
    with pytest.raises(DataError) as error:
        refuse_odd_cameras(cameras, "here")
    assert "\n" not in str(error.value) and str(error.value).startswith("here")
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("n_views", [3, 4, 6, 9])
@pytest.mark.parametrize("elevations", [(0.0,), (0.0, 20.0), (-10.0, 60.0)])
def test_rings_are_accepted(n_views, elevations):
    for start in (0.0, 40.0):
        refuse_odd_cameras(ring(n_views, 64, 48, elevations=elevations, start=start), "here")


def test_views_from_one_side_are_accepted():
    refuse_odd_cameras([looking_at((x, 1.2, 3.0), (0, 0.9, 0), 90, 64, 64) for x in (-0.4, 0.0, 0.5)], "here")


GL = np.diag([1.0, -1.0, -1.0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shift": lambda t: 1000 * t}, ("3000", "millimetres")),
        ({"shift": lambda t: 100 * t}, ("300", "centimetres")),
        ({"shift": lambda t: t / 1000}, ("0.003 m",)),
        ({"rotation": lambda R: GL @ R, "shift": lambda t: GL @ t}, ("OpenGL", "rows 2 and 3")),
        ({"rotation": lambda R: R * 1.01}, ("camera 0", "rotation")),
        ({"rotation": lambda R: np.diag([1.0, 1.0, -1.0]) @ R}, ("camera 0", "mirrors")),
        ({"rotation": lambda R: R @ GL}, ("y axes", "[0.0, 0.99, ")),
        ({"rotation": lambda R: R @ [[1, 0, 0], [0, 0, 1], [0, -1, 0]]}, ("y axes", "y up")),
        ({"shift": lambda t: t * np.nan}, ("camera 0", "not finite")),
        ({"matrix": lambda K: -K}, ("camera 0", "focal")),
        ({"matrix": lambda K: K.T}, ("camera 0", "last row")),
    ],
)
def test_cameras_of_another_convention_or_unit_are_refused_and_it_is_said_which(changes, words):
    refused(changed(ring(6, 64, 64, elevations=(-8.0, 8.0)), **changes), *words)


def test_cameras_from_camera_to_world_are_refused():
    odd = [Camera(c.matrix, c.rotation.T, c.centre, c.height, c.width) for c in ring(6, 64, 64)]
    refused(odd, "from the camera to the world")


def test_a_point_on_all_lines_is_the_nearest_one():
    drawn = np.random.default_rng(0)
    point, ways = drawn.normal(size=3), drawn.normal(size=(5, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    np.testing.assert_allclose(nearest_point(point - drawn.uniform(1, 3, (5, 1)) * ways, ways), point, atol=1e-9)
