from dataclasses import fields

import numpy as np
import pytest

from fedloom.base.errors import DataError, MissingFileError
from fedloom.people.capture_files import read_captures, write_capture
from fedloom.people.meshes import Mesh
from fedloom.people.truth_files import Truth, read_truth, read_visible, write_truth
from support.people_runs import person, surface


def truth():
    drawn = np.random.default_rng(0)
    scene = surface(1, 48).mesh
    labels = drawn.integers(0, 6, len(scene.vertices))
    scene = Mesh(scene.vertices, scene.faces, drawn.random((len(labels), 3)), labels)
    top, body = (Mesh(scene.vertices + off, scene.faces[:50]) for off in (0.01, -0.01))
    visible_F = drawn.random(len(scene.faces)) < 0.7
    numbers = drawn.random(10), drawn.random((24, 3)), drawn.random(3)
    return Truth(scene, visible_F, body, {"tee.1": top}, *numbers, {"tee.1": drawn.random((9, 3))})


def same(one, other):
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other) and one.dtype == other.dtype
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one is other if one is None else all(same(vars(one)[f.name], vars(other)[f.name]) for f in fields(one))


def test_all_that_was_written_is_read(tmp_path):
    made = truth()
    write_truth(made, tmp_path / "truth")
    assert same(made, read_truth(tmp_path / "truth"))
    known = read_visible(tmp_path / "truth")
    assert same(known.mesh, made.scene) and same(known.visible_F, made.visible_F)


def test_a_scan_has_neither_body_nor_garments(tmp_path):
    made = truth()
    bare = Truth(Mesh(made.scene.vertices, made.scene.faces), made.visible_F)
    write_truth(bare, tmp_path / "truth")
    assert same(bare, read_truth(tmp_path / "truth"))


def test_a_truth_beside_the_pictures_changes_nothing_of_what_is_read(tmp_path):
    made = person(1, 48)[0]
    write_capture(made, tmp_path / "p1")
    write_truth(truth(), tmp_path / "p1" / "truth")
    (found,) = read_captures(tmp_path)
    assert found.name == made.name and set(vars(found)) == set(vars(made))


def odd(tmp_path, **changes):
    write_truth(truth(), tmp_path)
    with np.load(tmp_path / "truth.npz") as opened:
        arrays = dict(opened) | changes
    np.savez(tmp_path / "truth.npz", **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scene.faces": None}, "scene.faces: found none"),
        ({"scene.faces": np.zeros((4, 3))}, "scene.faces: found float64"),
        ({"scene.faces": np.full((4, 3), 10**6)}, "not there"),
        ({"scene.vertices": np.full((4, 3), np.nan)}, "not finite"),
        ({"scene.vertices": np.zeros((4, 2))}, r"scene.vertices: found shape \(4, 2\)"),
        ({"visible": None}, "visible: found none"),
        ({"visible": np.ones(4, bool)}, r"visible: found \(4,\) of"),
    ],
)
def test_odd_truths_are_refused(tmp_path, changes, words):
    odd(tmp_path, **changes)
    for read in (read_truth, read_visible):
        with pytest.raises(DataError, match=words):
            read(tmp_path)


def test_a_missing_and_a_damaged_one_are_refused(tmp_path):
    with pytest.raises(MissingFileError):
        read_visible(tmp_path)
    (tmp_path / "truth.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(DataError, match=r"truth\.npz"):
        read_truth(tmp_path)
