"""A person's numbers: next to perfect where the truth is put in place of what was made, and worse by what is spoilt."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from fedloom.people.array_files import arrays_of
from fedloom.people.labels import LOWER, SKIN, UPPER
from fedloom.people.measuring import measured, normal_map_l2
from fedloom.people.meshes import part
from fedloom.people.person_folder import PersonFolder
from fedloom.people.truth_files import read_truth
from support.shapes3d import sphere
from support.small_people import capture_at

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return capture_at(tmp_path_factory.mktemp("measuring") / "capture")


def person_of(capture, folder, *, shift_m=0.0, swapped=False):
    """A person's folder of what is true, garments and body moved upwards, skin and clothes taken for each other."""
    truth, person = read_truth(capture / "truth"), PersonFolder(folder)
    person.begin(capture, "truth")
    scene, up = truth.scene, np.array((0.0, shift_m, 0.0))
    with person.making("surface", "0" * 16) as arrays:
        arrays |= arrays_of("surface", scene) | arrays_of("hull", scene.moved(scene.vertices + up))
    labels = scene.labels.copy()
    if swapped:
        labels[scene.labels == SKIN], labels[scene.labels == UPPER] = UPPER, SKIN
    with person.making("layers", "1" * 16) as arrays:
        arrays |= {"labels": labels.astype(np.uint8)}
        for name, kind in (("upper", UPPER), ("lower", LOWER)):
            cloth = part(scene, scene.faces[(scene.labels[scene.faces] == kind).all(1)])[0]
            arrays |= arrays_of(name, cloth.moved(cloth.vertices + up)) | {f"{name}.rough_mm": np.array((2.0, 1.0))}
    with person.making("body", "2" * 16) as arrays:
        arrays |= arrays_of("body", truth.body.moved(truth.body.vertices * (1 + shift_m)))
    return person


def told_of(person):
    return {(one.of, one.name): one.value for one in measured(person)}


def test_the_truth_itself_is_next_to_perfect(capture, tmp_path):
    told = told_of(person_of(capture, tmp_path / "anna"))
    for of, name in told:
        if name in ("chamfer_cm", "acc_cm", "comp_cm", "floor_cm") and of != "seams":
            assert told[of, name] < 0.01
    assert told["surface", "fscore_1cm"] == 1 and told["surface", "normal_map_l2"] == 0
    assert told["classes", "miou"] > 0.97  # where two classes meet, a vertex lies on faces of both
    assert told["body under clothes", "distance_mm"] < 0.1 and told["upper", "roughness_as_cut_mm"] == 2
    assert told["upper", "edges"] == 4 and told["lower", "edges"] == 3
    # The trousers' waist lies under the top, so that no camera sees it and it is no seam to be found.
    assert 0 < told["seams", "chamfer_cm"] < 2


def test_what_is_spoilt_is_told_and_nothing_else(capture, tmp_path):
    right = told_of(person_of(capture, tmp_path / "anna"))
    moved = told_of(person_of(capture, tmp_path / "berta", shift_m=0.02))
    assert moved["hull", "chamfer_cm"] > 0.3 and moved["surface", "chamfer_cm"] == right["surface", "chamfer_cm"]
    assert moved["upper", "comp_cm"] > 0.3 and moved["seams", "chamfer_cm"] > right["seams", "chamfer_cm"] + 1
    assert moved["body under clothes", "bias_mm"] > 1
    swapped = told_of(person_of(capture, tmp_path / "carla", swapped=True))
    assert swapped["classes", "iou_skin"] < 0.1 < 0.9 < swapped["classes", "iou_lower"]
    assert swapped["upper", "chamfer_cm"] == right["upper", "chamfer_cm"]


def test_without_the_truth_the_photographs_and_the_layers_are_told(capture, tmp_path):
    mine = Path(shutil.copytree(capture, tmp_path / "capture"))
    person = person_of(mine, tmp_path / "anna")
    with_truth = told_of(person)
    shutil.rmtree(mine / "truth")
    told = told_of(person)
    assert {of for of, _ in told} == {"photographs", "upper", "lower"}
    assert (
        told.items() <= with_truth.items() and 0 < told["photographs", "ssim_person"] < told["photographs", "ssim"] < 1
    )


def test_normals_of_a_ball_and_of_a_greater_one_differ_at_its_rim_alone():
    ball = sphere(0.3, 40)
    assert normal_map_l2(ball, ball) == 0
    rim = 1 - (0.3 / 0.33) ** 2  # of the pixels that show either, and there the other has no normal: 1 a pixel
    assert normal_map_l2(sphere(0.33, 40), ball) == pytest.approx(rim + (1 - rim) * 0.06, abs=0.05)
