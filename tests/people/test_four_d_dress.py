import numpy as np
import pytest
from PIL import Image

from fedloom.base.errors import DataError, MissingFileError
from fedloom.people.capture_files import refuse_odd_capture
from fedloom.people.readers.four_d_dress import read_4d_dress
from support.scan_files import AT, four_d_dress, pickled

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def laid(tmp_path_factory):
    return four_d_dress(tmp_path_factory.mktemp("dress"))


def test_a_frame_is_read_whole_and_put_to_the_origin_by_its_masks(laid):
    take, small, mesh, told = laid
    capture, truth = read_4d_dress(take, 6, consent=True)
    refuse_odd_capture(capture, "here")
    assert capture.name == "00122-Outer-Take9-f00006"
    for found, right in zip(capture.photos, small, strict=True):
        assert np.array_equal(found.rgb, right.rgb) and np.array_equal(found.mask, right.mask)
        np.testing.assert_allclose(found.camera.matrix, right.camera.matrix, atol=1e-9)
    moved = truth.scene.vertices - mesh.vertices
    assert np.abs(moved - moved[0]).max() < 1e-9  # as a whole, and the person stands where people do
    assert np.abs(truth.scene.vertices[:, [0, 2]].mean(0)).max() < 0.05 and np.abs(moved[0, 1]) < 0.15
    points = mesh.vertices[::50]
    for found, right in zip(capture.photos, small, strict=True):  # the scan still lies in the pictures
        np.testing.assert_allclose(
            found.camera.project(points + moved[0])[0], right.camera.project(points)[0], atol=1e-6
        )
    assert (truth.scene.labels == np.array([1, 2, 3, 4, 5, 4])[told]).all()
    assert 0.4 < truth.visible_F.mean() < 0.98


def test_the_scan_moves_nothing_in_the_pictures(laid):
    take, _, mesh, _ = laid
    before, _ = read_4d_dress(take, 6, consent=True)
    file = take / "Meshes_pkl" / "mesh-f00006.pkl"
    kept = file.read_bytes()
    pickled(file, {"vertices": mesh.vertices * 0.5 + AT, "faces": mesh.faces})
    after, _ = read_4d_dress(take, 6, consent=True)
    file.write_bytes(kept)
    for one, other in zip(before.photos, after.photos, strict=True):
        assert np.array_equal(one.camera.shift, other.camera.shift)


def test_missing_frames_and_other_factors_are_refused(laid):
    take = laid[0]
    with pytest.raises(MissingFileError, match=r"mesh-f00007\.pkl"):
        read_4d_dress(take, 7, consent=True)
    with pytest.raises(DataError, match="that 7 divides"):
        read_4d_dress(take, 6, consent=True, factor=7)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("Meshes_pkl/mesh-f00006.pkl", [1, 2], "allowed is a table"),
        ("Meshes_pkl/mesh-f00006.pkl", {"verts": 1}, "found no 'vertices'"),
        ("Meshes_pkl/mesh-f00006.pkl", {"vertices": np.zeros((4, 2))}, r"'vertices': found float64 \(4, 2\)"),
        (
            "Meshes_pkl/mesh-f00006.pkl",
            {"vertices": np.zeros((4, 3)), "faces": np.full((2, 3), 4)},
            "other than 0 to 3",
        ),
        ("Semantic/labels/label-f00006.pkl", {"scan_labels": np.zeros(3)}, "'scan_labels': found"),
        ("Capture/cameras.pkl", {"0004": np.eye(3)}, "'0004': found ndarray"),
        ("Capture/cameras.pkl", {"0004": {"intrinsics": np.eye(3)}}, "found no 'extrinsics'"),
        ("Capture/cameras.pkl", {"0004": {"intrinsics": np.eye(4)}}, "'intrinsics': found"),
        ("Capture/cameras.pkl", {"9999": {"intrinsics": np.eye(3), "extrinsics": np.eye(3, 4)}}, "9999"),
    ],
)
def test_odd_tables_are_refused(laid, name, value, words):
    file = laid[0] / name
    kept = file.read_bytes()
    pickled(file, value)
    with pytest.raises(DataError, match=words) as error:
        read_4d_dress(laid[0], 6, consent=True)
    file.write_bytes(kept)
    assert "\n" not in str(error.value)


def test_labels_that_there_are_not_and_empty_masks_are_refused(laid):
    take, _, _, told = laid
    file = take / "Semantic" / "labels" / "label-f00006.pkl"
    kept = file.read_bytes()
    pickled(file, {"scan_labels": told + 1})
    with pytest.raises(DataError, match="found label 6"):
        read_4d_dress(take, 6, consent=True)
    file.write_bytes(kept)
    mask = take / "Capture" / "0028" / "masks" / "mask-f00006.png"
    kept = mask.read_bytes()
    Image.new("L", (940, 1280)).save(mask)
    with pytest.raises(DataError, match="without a person"):
        read_4d_dress(take, 6, consent=True)
    mask.write_bytes(kept)
