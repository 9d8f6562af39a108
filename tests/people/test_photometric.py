from dataclasses import fields, replace

import pytest
import torch

from fedloom.base.errors import ConfigError
from fedloom.people.adapter.examples import View
from fedloom.people.captures import Capture, Photo
from fedloom.people.measured import surface_scores
from fedloom.people.photometric import Weights, bundle_of, losses
from fedloom.people.scene import Scene, scene_of
from people.test_field import built
from support.people_runs import person, surface


def test_nothing_that_is_trained_on_has_a_shape_of_the_person():
    """No depth of a sensor, no distance, mesh or body: the depth and distances there are come from masks alone."""
    names = {one.name for kind in (Capture, Photo, View) for one in fields(kind)}
    assert names == {
        *("name", "photos", "studio", "consent", "rgb", "mask", "camera", "parse"),
        *("scene", "target", "place", "tags"),
    }
    made = {"hull_XYZ", "hull_depth_VHW", "distance_VHW"}
    assert {one.name for one in fields(Scene)} - made == {
        *("name", "key", "rgb_V3HW", "mask_VHW", "matrix_V33", "rotation_V33", "shift_V3")
    }
    capture = person(2, 48)[0]
    one, other = scene_of(capture), scene_of(_repainted(capture, 0))
    assert all(torch.equal(vars(one)[name], vars(other)[name]) for name in made)  # of masks, not of colours


def _repainted(capture, view):
    photo = capture.photos[view]
    photos = list(capture.photos)
    photos[view] = replace(photo, rgb=255 - photo.rgb)
    return replace(capture, photos=tuple(photos))


def test_the_targets_colours_are_kept_back_and_all_masks_make_the_hull():
    capture, field = person(2, 48)[0], built()
    plain = bundle_of(scene_of(capture), 1, 0, 64)
    painted = replace(plain, scene=scene_of(_repainted(capture, 1)))
    one, other = losses(field, plain, Weights()), losses(field, painted, Weights())
    assert 1 not in plain.sources and one.mask == other.mask and one.residual == other.residual
    assert one.colour != other.colour  # what it is told from does not change, what it is held against does
    blind = replace(plain, scene=replace(plain.scene, distance_VHW=plain.scene.distance_VHW[[0, 0, 2, 3, 4]]))
    assert losses(field, blind, Weights()).mask != one.mask


def test_bundles_follow_from_their_place_and_take_four_to_six_sources():
    scene = scene_of(person(1, 48, 8)[0])
    many = [bundle_of(scene, view, place, 32) for view in range(8) for place in range(6)]
    assert {len(one.sources) for one in many} == {4, 5, 6}
    assert all(one.target not in one.sources for one in many)
    again = bundle_of(scene, 3, 4, 32)
    assert torch.equal(many[3 * 6 + 4].pixels_N2, again.pixels_N2)
    assert not torch.equal(many[0].pixels_N2, many[1].pixels_N2)


@pytest.mark.slow
def test_training_carves_what_photographs_do_not_agree_on():
    """Learnt worse than the hull, as first attempts at such fields were, is a failure whatever the loss says."""
    field, scenes = built(hull=True), [scene_of(person(seed, 64)[0]) for seed in range(3)]
    optimiser = torch.optim.Adam(field.parameters(), lr=2e-3)
    for step in range(40):
        optimiser.zero_grad()
        losses(field, bundle_of(scenes[step % 3], step % 5, step, 128), Weights()).total.backward()
        optimiser.step()
    with torch.no_grad():
        told = surface_scores(field, scene_of(person(9, 64)[0]), surface(9, 64), 0.03)
    assert told["chamfer_cm"] < 0.95 * told["hull_chamfer_cm"] and told["acc_cm"] < told["hull_acc_cm"]


def test_weights_below_zero_are_refused():
    with pytest.raises(ConfigError, match=r"mask: found -1, allowed is a number >= 0"):
        Weights(mask=-1)
