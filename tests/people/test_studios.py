from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fedloom.base.errors import ConfigError
from fedloom.people.cameras import refuse_odd_cameras
from fedloom.people.dressed import N_TONES
from fedloom.people.studios import Studio, make_studios
from fedloom.people.textures import KINDS

pytestmark = pytest.mark.slow

TOPS, BOTTOMS = Studio().tops, Studio().bottoms


def numbers(studio):
    """All numbers that tell a studio, in one row."""
    light, noise = studio.light, studio.noise
    own = (studio.start_deg, *studio.elevations_deg, studio.distance_m, light.yaw_deg, light.height_deg, light.ambient)
    return np.array([*own, *light.cast, *light.background, noise.jitter_px, noise.rate, noise.p_fail, noise.calib])


def test_without_skew_studios_are_alike_but_for_their_names():
    studios = make_studios(5, 0, 0.0)
    assert {replace(one, name="") for one in studios} == {
        replace(Studio(noise=studios[0].noise, light=studios[0].light), name="")
    }
    assert len({one.name for one in studios}) == 5 and set(studios[0].tops) == set(TOPS)


@pytest.mark.parametrize("count", [1, 2, 7, 12])
def test_with_skew_every_number_differs_between_all_studios_and_kinds_are_dealt_out_evenly(count):
    studios = make_studios(count, 3, 1.0)
    rows = np.stack([numbers(one) for one in studios])
    assert all(len(np.unique(column.round(9))) == count for column in rows.T)
    np.testing.assert_allclose(rows.mean(0), numbers(make_studios(1, 0, 0.0)[0]), atol=1e-9)
    for kinds, name in ((TOPS, "tops"), (BOTTOMS, "bottoms"), (KINDS, "textures"), (range(N_TONES), "tones")):
        dealt = Counter(kind for one in studios for kind in vars(one)[name])
        assert dealt.total() == count and max(dealt.values()) - min(dealt[kind] for kind in kinds) <= 1


def test_studios_are_as_far_apart_as_the_skew_says():
    far, near = (np.stack([numbers(one) for one in make_studios(6, 1, skew)]).std(0) for skew in (1.0, 0.25))
    np.testing.assert_allclose(near, far / 4, atol=1e-9)


def test_the_seed_draws_who_is_where():
    assert make_studios(6, 1, 1.0) == make_studios(6, 1, 1.0) != make_studios(6, 2, 1.0)


def test_rings_are_rings_of_the_size_asked():
    for studio in make_studios(4, 0, 1.0, size=96, views=5):
        cameras = studio.cameras()
        refuse_odd_cameras(cameras, studio.name)
        assert [(one.height, one.width) for one in cameras] == [(96, 96)] * 5
        assert np.linalg.norm(cameras[0].centre - [0, 0.9, 0]) == pytest.approx(studio.distance_m)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"views": 2}, "views"),
        ({"tops": ()}, "tops"),
        ({"elevations_deg": ()}, "elevations"),
        ({"distance_m": 0.5}, "distance"),
    ],
)
def test_odd_studios_are_refused(odd, words):
    with pytest.raises(ConfigError, match=words):
        Studio(**odd)


@pytest.mark.parametrize(("count", "skew"), [(0, 0.5), (3, 1.5), (3, float("nan"))])
def test_odd_skews_are_refused(count, skew):
    with pytest.raises(ConfigError, match="studios: found count"):
        make_studios(count, 0, skew)
