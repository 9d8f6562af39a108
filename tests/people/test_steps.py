import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedloom.base.errors import ConfigError, DataError, MissingFileError
from fedloom.people.array_files import arrays_of, mesh_of, read_arrays, write_arrays
from fedloom.people.capture_files import read_capture, write_capture
from fedloom.people.fit import Fitting
from fedloom.people.labels import GARMENTS, LABELS, LOWER, UPPER
from fedloom.people.meshes import boundary_loops, is_edge_manifold, part
from fedloom.people.nearest import NearestPoints
from fedloom.people.page import layers_of
from fedloom.people.person_folder import PersonFolder
from fedloom.people.raster import depths_of
from fedloom.people.steps import Reconstructing, reconstruct
from fedloom.people.truth_files import read_truth
from fedloom.people.wearing import fit_body, garments_of, stance_of, swap
from support.small_people import (
    BODY,
    CELLS,
    FITTING,
    body_at,
    capture_at,
    copied,
    hull,
    layers_at,
    quiet,
    surface_at,
    whole_at,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A person with surface, layers and body."""
    folder = tmp_path_factory.mktemp("steps")
    return whole_at(capture_at(folder / "capture"), folder / "anna")


@pytest.fixture
def person(made, tmp_path):
    """A copy of it to change."""
    return copied(made, tmp_path / "anna")


def capture_of(person):
    return Path(person.record["capture"])


def state(folder):
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}


def refused(word, call, *given, kind=DataError):
    with pytest.raises(kind, match=word) as told:
        call(*given)
    assert "\n" not in str(told.value)
    return str(told.value)


def put_on(giver, taker, *names, route="bound", pose="own", say=quiet):
    return swap(giver, taker, BODY, names, route, pose, say)


def test_steps_leave_what_they_made(made):
    assert sorted(file.name for file in made.path.iterdir()) == ["body.npz", "layers.npz", "person.json", "surface.npz"]
    steps = made.record["steps"]
    assert list(steps) == ["surface", "layers", "body"]
    assert all(told["wall_s"] > 0 and len(told["of"]) == 16 for told in steps.values())
    assert set(garments_of(made)) == {"upper", "lower"} and list(layers_of(made)) == ["body", "upper", "lower"]


def test_surface_and_layers_lie_about_the_truth(made):
    """64 x 64 pixels and cells of 4 cm: the hull is centimetres off, and no more."""
    truth = read_truth(capture_of(made) / "truth")
    surface = mesh_of(made.arrays("surface"), "surface", made.file("surface"))
    assert NearestPoints(truth.scene)(surface.vertices).distance_N.mean() < 0.04
    for name, kind in (("upper", "tee"), ("lower", "trousers")):
        garment = garments_of(made)[name]
        assert is_edge_manifold(garment.faces) and len(boundary_loops(garment.faces)) == (4 if kind == "tee" else 3)
        assert NearestPoints(truth.garments[kind])(garment.vertices).distance_N.mean() < 0.03
    body = layers_of(made)["body"]
    assert body.colours is None and len(body.vertices) == len(BODY.load().template_M3)


def test_skin_and_garments_share_the_surface_out(made):
    layers = made.arrays("layers")
    surface = mesh_of(made.arrays("surface"), "surface", made.file("surface"))
    own = np.isin(layers["labels"], GARMENTS)
    assert len(layers["skin.faces"]) == (~own[surface.faces].any(1)).sum() > 100
    assert {LABELS[UPPER], LABELS[LOWER]} <= {key.partition(".")[0] for key in layers}
    assert np.abs(layers["margins"]).max() <= 1 and len(layers["margins"]) == len(surface.vertices)


def test_depths_are_those_of_the_surface_before_each_camera(made):
    mesh = mesh_of(made.arrays("surface"), "surface", made.file("surface"))
    capture = read_capture(capture_of(made))
    depths = depths_of(mesh, capture.cameras)
    assert depths.shape == (5, 64, 64)
    for depth, photo in zip(depths, capture.photos, strict=True):
        seen = depth[np.isfinite(depth) & (depth > 0)]
        every = photo.camera.project(mesh.vertices)[1]
        assert every.min() - 1e-6 <= seen.min() and seen.max() <= every.max() + 1e-6


def test_the_same_field_and_photographs_make_the_same_bytes_elsewhere(made, tmp_path):
    again = layers_at_new(capture_of(made), tmp_path / "berta")
    for step in ("surface", "layers"):
        first, second = made.arrays(step), again.arrays(step)
        assert first.keys() == second.keys()
        assert all(one.tobytes() == second[name].tobytes() for name, one in first.items())


def layers_at_new(capture, folder):
    person = surface_at(capture, folder)
    layers_at(person)
    return person


def test_a_second_call_makes_nothing_again(person):
    before, told = state(person.path), []
    surface_at(capture_of(person), person.path, told.append)
    layers_at(person, told.append)
    body_at(person, told.append)
    assert state(person.path) == before
    assert told == ["surface: there already", "layers: there already", "body: there already"]


def test_other_settings_make_a_step_again(person):
    before = person.record["steps"]
    fit_body(person, BODY, replace(FITTING, single=11), quiet)
    after = person.record["steps"]
    assert before["surface"] == after["surface"] and before["layers"] == after["layers"]
    assert before["body"]["of"] != after["body"]["of"]


@pytest.mark.slow
def test_what_follows_a_step_that_changed_is_made_again_and_not_used_before(person):
    old = person.arrays("layers")
    reconstruct(capture_of(person), hull(), "hull", person.path, Reconstructing(cell_m=0.05), quiet)
    assert list(person.record["steps"]) == ["surface"]
    refused("fedloom people separate", fit_body, person, BODY, FITTING, quiet)  # old classes, new vertices
    layers_at(person)
    assert len(person.arrays("layers")["labels"]) != len(old["labels"])
    body_at(person)
    assert list(person.record["steps"]) == ["surface", "layers", "body"]


@pytest.mark.slow
def test_other_labels_of_the_photographs_make_the_layers_again(person, tmp_path):
    """Photographs and masks are the same, so the surface stays."""
    capture, mine, told = read_capture(capture_of(person)), tmp_path / "capture", []
    shutil.copytree(capture_of(person), mine)
    (person.path / "person.json").write_text(json.dumps(person.record | {"capture": str(mine)}))
    layers_at(person, told.append)
    photos = []
    for photo in capture.photos:
        likely = photo.parse.probabilities.copy()
        likely[LOWER] += likely[UPPER]
        likely[UPPER] = 0
        photos.append(replace(photo, parse=replace(photo.parse, probabilities=likely)))
    write_capture(replace(capture, photos=tuple(photos)), mine)
    surface_at(mine, person.path, told.append)
    layers_at(person, told.append)
    assert told[:2] == ["layers: there already", "surface: there already"] and "upper: no garment" in told
    assert set(garments_of(person)) == {"lower"}  # an absent garment is no ghost


def test_a_step_that_was_stopped_leaves_none_and_the_next_call_goes_on(person, monkeypatch):
    body = person.record["steps"]["body"]
    (person.path / "person.json").write_text(
        json.dumps(person.record | {"steps": {k: v for k, v in person.record["steps"].items() if k != "body"}})
    )

    def stop(*given):
        raise KeyboardInterrupt

    before = state(person.path)
    with monkeypatch.context() as patched:
        patched.setattr("fedloom.people.wearing.fitted", stop)
        with pytest.raises(KeyboardInterrupt):
            body_at(person)
    assert state(person.path) == before and not person.made_of("body")
    told = []
    layers_at(person, told.append)
    body_at(person)
    assert told == ["layers: there already"] and person.record["steps"]["body"]["of"] == body["of"]


def test_a_stop_while_a_step_is_written_leaves_none_known(person, monkeypatch):
    def stop(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fedloom.people.person_folder.write_arrays", stop)
        with pytest.raises(KeyboardInterrupt):
            reconstruct(capture_of(person), hull(), "hull", person.path, Reconstructing(cell_m=0.05), quiet)
    assert person.record["steps"] == {}


def test_a_folder_of_another_capture_or_field_is_refused_untouched(person, tmp_path):
    before = state(person.path)
    other = tmp_path / "other"
    write_capture(replace(read_capture(capture_of(person)), name="other"), other)
    word = refused("found capture .* choose another --out", surface_at, other, person.path)
    assert str(other) in word
    refused(
        "found field hull, allowed is trained", reconstruct, capture_of(person), hull(), "trained", person.path,
        CELLS, quiet,
    )  # fmt: skip
    assert state(person.path) == before


def test_masks_that_agree_nowhere_leave_no_folder(person, tmp_path):
    capture = read_capture(capture_of(person))
    corner = np.zeros((64, 64), np.uint8)
    corner[:8, :8] = 255
    photos = [
        replace(photo, mask=np.roll(corner, 56 * (at % 2), axis=(0, 1))) for at, photo in enumerate(capture.photos)
    ]
    write_capture(replace(capture, photos=tuple(photos)), tmp_path / "odd")
    refused("found no person where all masks agree", surface_at, tmp_path / "odd", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_step_before_its_time_names_the_command(made, tmp_path):
    missing = PersonFolder(tmp_path / "nobody")
    refused("no person's folder .* fedloom people reconstruct", layers_at, missing, kind=MissingFileError)
    assert not missing.path.exists()
    own = copied(made, tmp_path / "own")
    steps = {name: told for name, told in own.record["steps"].items() if name == "surface"}
    (own.path / "person.json").write_text(json.dumps(own.record | {"steps": steps}))
    refused("'layers' has not been made; .* fedloom people separate", body_at, own)
    refused("'body' has not been made; .* fedloom people fit", stance_of, own)
    refused("'body' has not been made; .* fedloom people fit", put_on, own, made, "upper")
    refused("'body' has not been made; .* fedloom people fit", put_on, made, own, "upper")


@pytest.mark.parametrize("text", ["{", "[]", '{"capture": "a"}', '{"capture": "a", "field": "b", "steps": 3}'])
def test_a_damaged_record_is_refused(person, text):
    (person.path / "person.json").write_text(text)
    refused("person.json: damaged .* reconstruct the person anew", layers_at, person)


def test_a_garment_of_another_is_worn_in_another_pose(made, person, tmp_path):
    giver = copied(made, tmp_path / "berta")
    told = []
    step = put_on(giver, person, "upper", pose="raised", say=told.append)
    assert step == "swap_berta_upper_bound_raised" and told == [f"{step}: lower, upper"]
    arrays = person.arrays(step)
    assert arrays["given"].tolist() == ["upper"]
    worn, own = mesh_of(arrays, "upper", person.file(step)), garments_of(giver)["upper"]
    body = mesh_of(arrays, "body", person.file(step))
    assert np.array_equal(worn.faces, own.faces) and np.array_equal(worn.colours, own.colours)
    away = NearestPoints(body)(worn.vertices)
    assert away.distance_N.mean() < 0.08
    assert body.vertices[np.abs(BODY.load().template_M3[:, 0]) > 0.8, 1].min() > 1.2  # arms are up
    before = state(person.path)
    assert put_on(giver, person, "upper", pose="raised", say=told.append) == step
    assert state(person.path) == before and told[1:] == [f"{step}: there already"]
    fit_body(giver, BODY, replace(FITTING, layered=11), quiet)
    put_on(giver, person, "upper", pose="raised", say=told.append)
    assert person.record["steps"][step]["of"] != json.loads(before["person.json"][0])["steps"][step]["of"]


def test_own_clothes_in_the_own_pose_stay_where_they_were(made, person, tmp_path):
    """But for what is brought out of the body."""
    step = put_on(copied(made, tmp_path / "same"), person)
    worn, own = mesh_of(person.arrays(step), "lower", person.file(step)), garments_of(made)["lower"]
    assert np.median(np.linalg.norm(worn.vertices - own.vertices, axis=1)) < 0.005
    assert person.arrays(step)["given"].tolist() == ["lower", "upper"]


@pytest.mark.slow
def test_offsets_give_garments_of_the_bodys_topology(made, person, tmp_path):
    step = put_on(copied(made, tmp_path / "berta"), person, "lower", route="offsets", pose="a")
    arrays = person.arrays(step)
    faces = {tuple(face) for face in arrays["lower.faces"].tolist()}
    assert faces and len(arrays["lower.vertices"]) < len(BODY.load().template_M3)
    worn = mesh_of(arrays, "lower", person.file(step))
    assert is_edge_manifold(worn.faces) and worn.colours.min() >= 0 and worn.colours.max() <= 1
    body = NearestPoints(mesh_of(arrays, "body", person.file(step)))
    assert body(worn.vertices).distance_N.mean() < 0.08


def without(person, name):
    """Forget a garment of a person's layers."""
    arrays = read_arrays(person.file("layers"))
    write_arrays(person.file("layers"), {key: one for key, one in arrays.items() if not key.startswith(f"{name}.")})


def test_a_garment_that_is_not_there_is_refused(made, person, tmp_path):
    giver = copied(made, tmp_path / "berta")
    before = state(person.path)
    refused("no garment hat, there are lower, upper", put_on, giver, person, "hat")
    without(giver, "upper")
    refused("no garment upper, there are lower", put_on, giver, person, "upper")
    without(giver, "lower")
    refused("no garment at all, there are none", put_on, giver, person)
    assert state(person.path) == before


def test_another_body_model_is_refused(made, person, tmp_path):
    giver = copied(made, tmp_path / "berta")
    other = BODY.__class__(cell_m=0.03)
    told = refused("fitted with another body, .*fit it again: fedloom people fit", swap, giver, person, other,
                   ("upper",), "bound", "own", quiet)  # fmt: skip
    assert str(giver.path) in told
    fit_body(giver, other, FITTING, quiet)
    told = refused("another body", put_on, giver, person, "upper")
    assert str(giver.path) in told
    told = refused("another body", swap, giver, person, other, ("upper",), "bound", "own", quiet)
    assert str(person.path) in told


@pytest.mark.slow
def test_a_garment_with_holes_is_refused_for_offsets_and_carried_when_bound(made, person, tmp_path):
    giver = copied(made, tmp_path / "berta")
    upper, chosen = garments_of(giver)["upper"], []
    edge = np.isin(upper.faces, np.concatenate(boundary_loops(upper.faces))).any(1)
    for face in np.flatnonzero(~edge):  # inner faces that have no corner in common
        if not np.isin(upper.faces[face], upper.faces[chosen]).any():
            chosen.append(face)
    holed = part(upper, np.delete(upper.faces, chosen[:6], axis=0))[0]
    arrays = read_arrays(giver.file("layers"))
    write_arrays(giver.file("layers"), arrays | arrays_of("upper", holed))
    n_loops = len(boundary_loops(holed.faces))
    before = state(person.path)
    refused(
        f"'upper': found {n_loops} edges, allowed are 4: .*bound",
        lambda: put_on(giver, person, "upper", route="offsets"),
    )
    assert state(person.path) == before and n_loops >= 8
    assert put_on(giver, person, "upper") in person.record["steps"]


@pytest.mark.parametrize("kind", [Reconstructing, Fitting])
def test_settings_out_of_range_are_refused(kind):
    with pytest.raises(ConfigError, match="> 0"):
        kind(**{"cell_m" if kind is Reconstructing else "rate": 0.0})


def test_photographs_without_labels_have_no_layers(person, tmp_path):
    capture = read_capture(capture_of(person))
    bare = replace(capture, photos=tuple(replace(photo, parse=None) for photo in capture.photos))
    write_capture(bare, tmp_path / "bare")
    own = surface_at(tmp_path / "bare", tmp_path / "out")
    refused("parse", layers_at, own)
    assert list(own.record["steps"]) == ["surface"] and os.listdir(own.path).count("layers.npz") == 0
