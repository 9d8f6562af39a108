from dataclasses import replace

import numpy as np
import pytest

from fedloom.base.plugin import lookup
from fedloom.people.body import BodyModel
from fedloom.people.capture_files import read_capture, refuse_odd_capture, write_capture
from fedloom.people.labels import LOWER, SKIN, UPPER
from fedloom.people.meshes import face_normals
from fedloom.people.noise import ParserNoise
from fedloom.people.scene import HIGH, LOW, scene_of
from fedloom.people.studios import Studio, make_studios
from fedloom.people.synthetic import person_of
from fedloom.people.truth_files import read_truth, write_truth

pytestmark = pytest.mark.slow

SURE = Studio(noise=ParserNoise(jitter_px=0.0, rate=0.0, p_fail=0.0, speckle=0.0))


@pytest.fixture(scope="module")
def body():
    return lookup(BodyModel, "procedural")().load()


@pytest.fixture(scope="module")
def person(body):
    return person_of(body, SURE, "a", "studio", 0)


def test_a_person_is_a_capture_that_can_be_learnt_from(person):
    capture, truth = person
    refuse_odd_capture(capture, "here")
    assert (capture.name, capture.studio, len(capture.photos)) == ("a-studio-0", "studio", 6)
    vertices = truth.scene.vertices
    assert (vertices > np.array(LOW)).all() and (vertices < np.array(HIGH)).all()
    assert vertices[:, 1].min() == pytest.approx(0, abs=1e-6)
    assert not set(vars(capture.photos[0])) & {"depth", "mesh", "surface", "distance"}


def test_pixels_show_the_class_of_what_lies_there(person):
    capture, truth = person
    scene = truth.scene
    middle_F3, normal_F3 = scene.vertices[scene.faces].mean(1), face_normals(scene)
    for photo in capture.photos:
        way_F3 = photo.camera.centre - middle_F3
        facing_F = truth.visible_F & ((way_F3 * normal_F3).sum(1) > 0.5 * np.linalg.norm(way_F3, axis=1))
        pixel_F2, depth_F = photo.camera.project(middle_F3)
        column_F, row_F = np.floor(pixel_F2).astype(int).T
        nearest = np.full(photo.mask.shape, np.inf)  # of the middles in each pixel the nearest is what it shows
        np.minimum.at(nearest, (row_F[facing_F], column_F[facing_F]), depth_F[facing_F])
        shown = np.flatnonzero(facing_F & (depth_F <= nearest[row_F, column_F] + 1e-9))
        inside = shown[photo.mask[row_F[shown], column_F[shown]] == 255]
        right = scene.labels[scene.faces[inside, 0]]
        assert (photo.parse.labels[row_F[inside], column_F[inside]] == right).mean() > 0.93


def test_skin_under_cloth_is_not_seen_and_most_of_the_cloth_is(person):
    _, truth = person
    body_F = len(truth.body.faces)
    middle_F3 = truth.scene.vertices[truth.scene.faces].mean(1)
    trunk_F = (np.abs(middle_F3[:, 1] - 1.15) < 0.1) & (np.hypot(middle_F3[:, 0], middle_F3[:, 2]) < 0.2)
    assert trunk_F[:body_F].sum() > 500 and truth.visible_F[:body_F][trunk_F[:body_F]].mean() < 0.02
    assert truth.visible_F[body_F:].mean() > 0.6
    labels = {kind: set(np.unique(mesh.labels)) for kind, mesh in truth.garments.items()}
    assert sorted(labels.values(), key=min) == [{UPPER}, {LOWER}] and SKIN in truth.scene.labels


def test_studios_dress_and_photograph_in_their_own_ways(body):
    found = {}
    for studio in make_studios(2, 0, 1.0, size=64):
        capture, truth = person_of(body, studio, 3, 0)
        assert set(truth.garments) == {*studio.tops, *studio.bottoms}
        corner = capture.photos[0].rgb[0, 0] / 255
        np.testing.assert_allclose(corner, studio.light.background, atol=0.5 / 255 + 1e-9)
        found[studio.name] = scene_of(capture).key
    assert len(set(found.values())) == 2


def test_parsers_err_at_the_rate_of_the_studio(body, person):
    noisy = replace(SURE, noise=replace(SURE.noise, rate=0.2))
    capture, _ = person_of(body, noisy, "a", "studio", 0)
    for photo, sure in zip(capture.photos, person[0].photos, strict=True):
        assert (photo.rgb == sure.rgb).all()  # nothing else depends on the parser
        shown = sure.parse.labels > 0
        assert (photo.parse.labels != sure.parse.labels)[shown].mean() == pytest.approx(0.2, abs=0.003)


def test_people_go_through_their_folders_whole(person, tmp_path):
    capture, truth = person
    write_capture(capture, tmp_path / capture.name)
    write_truth(truth, tmp_path / capture.name / "truth")
    assert scene_of(read_capture(tmp_path / capture.name)).key == scene_of(capture).key
    found = read_truth(tmp_path / capture.name / "truth")
    assert np.array_equal(found.scene.vertices, truth.scene.vertices) and np.array_equal(found.betas, truth.betas)
    assert found.offsets.keys() == truth.garments.keys()


def test_the_same_names_make_the_same_people(body, person):
    (first, _), (second, _) = (person_of(body, SURE, "a", "studio", place) for place in range(2))
    right = scene_of(person[0]).key
    assert scene_of(first).key == right != scene_of(second).key
    for one, other in zip(first.photos, person[0].photos, strict=True):
        assert np.array_equal(one.parse.probabilities, other.parse.probabilities)
