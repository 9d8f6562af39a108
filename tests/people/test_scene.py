import numpy as np
import pytest
import torch

from fedloom.people.scene import HIGH, LOW, box_span, coarse_hull, outlines, scene_of, silhouette_distance
from support.capsules import distance, traced
from support.people_runs import person


def soft_disk(radius, size=64, middle=(31.3, 30.6)):
    fine = (np.mgrid[: 8 * size, : 8 * size] + 0.5) / 8
    inside = np.hypot(fine[0] - middle[0], fine[1] - middle[1]) < radius
    return inside.reshape(size, 8, size, 8).mean((1, 3)).astype(np.float32)


def test_distances_of_a_soft_disk_are_right_to_a_fifth_of_a_pixel():
    found = silhouette_distance(soft_disk(17.4)).numpy()
    rows, columns = np.mgrid[:64, :64] + 0.5
    right = np.hypot(rows - 31.3, columns - 30.6) - 17.4
    near = np.abs(right) < 12
    assert np.abs(found - right)[near].mean() < 0.12 and np.abs(found - right)[near].max() < 0.5


@pytest.fixture(scope="module")
def known():
    capture, bones = person(3, 96, 6)
    return scene_of(capture), bones


def test_the_hull_holds_the_person_and_agrees_with_its_coarse_grid(known):
    scene, bones = known
    drawn = np.random.default_rng(0)
    points_N3 = drawn.uniform(np.array(LOW) + 0.2, np.array(HIGH) - 0.2, (20_000, 3))
    right_N = distance(points_N3, bones)
    here = torch.from_numpy(points_N3.astype(np.float32))
    hull_N = outlines(here, scene)[0].amax(0).numpy()
    assert (hull_N[right_N < 0] < 0.012).all()  # half a pixel is 11 mm
    assert (right_N[hull_N < -0.012] < 0.15).all()
    near_N = np.abs(hull_N) < 0.05
    assert np.abs(coarse_hull(here, scene.hull_XYZ).numpy() - hull_N)[near_N].max() < 0.03


def test_the_depth_of_the_hull_lies_before_the_persons(known):
    scene, bones = known
    camera = person(3, 96, 6)[0].photos[1].camera.resized(64, 64)
    right_N = traced(camera, bones)
    found_N = scene.hull_depth_VHW[1].numpy().ravel()
    both_N = np.isfinite(right_N) & (found_N < 50)
    assert both_N.sum() > 200
    off_N = right_N[both_N] - found_N[both_N]
    assert off_N.min() > -0.08 and -0.02 < np.median(off_N) < 0.15


def test_the_background_is_filled_with_the_nearest_colour_of_the_person(known):
    scene, _ = known
    capture = person(3, 96, 6)[0]
    sure = torch.from_numpy(capture.photos[0].mask) > 253
    rgb = torch.from_numpy(capture.photos[0].rgb).permute(2, 0, 1) / 255
    assert torch.equal(scene.rgb_V3HW[0][:, sure], rgb[:, sure])
    colours = {tuple(one) for one in rgb[:, sure].T.tolist()}
    assert {tuple(one) for one in scene.rgb_V3HW[0].flatten(1).T.tolist()} <= colours


def test_rays_enter_and_leave_the_box_where_slabs_say():
    origin = torch.tensor([[0.0, 1.0, 3.0], [0.0, 1.0, 3.0]])
    enter, leave = box_span(origin, torch.tensor([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]))
    assert enter[0].item() == pytest.approx(3 - HIGH[2]) and leave[0].item() == pytest.approx(3 - LOW[2])
    assert leave[1] < enter[1]  # it misses


def test_the_key_is_of_all_that_was_photographed():
    one, other = scene_of(person(3, 48)[0]), scene_of(person(4, 48)[0])
    assert one.key != other.key and one.key == scene_of(person(3, 48)[0]).key
