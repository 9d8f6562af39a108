from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fedloom.base.errors import DataError, MissingFileError
from fedloom.people.capture_files import read_capture, write_capture
from fedloom.people.photographs import Light
from fedloom.people.readers.thuman import read_thuman
from fedloom.people.studios import Studio
from support.scan_files import thuman

pytestmark = pytest.mark.slow

STUDIO = Studio(views=3, height=64, width=64, light=Light(ambient=1.0))


def test_a_scan_is_photographed_in_its_own_colours_with_its_feet_at_the_origin(tmp_path):
    folder, mesh = thuman(tmp_path)
    capture, truth = read_thuman(folder, STUDIO, consent=True)
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    right = mesh.vertices - [(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2]
    np.testing.assert_allclose(truth.scene.vertices, right, atol=2e-6)
    assert (capture.name, capture.studio, capture.consent) == ("0007", "studio", True)
    size = high - low
    for photo in capture.photos:
        # A texture that tells x and y is seen where points of that x and y are projected.
        row, column = np.argwhere(photo.mask == 255)[::40].T
        told = photo.rgb[row, column] / 255
        assert np.abs(told[:, 2] - 90 / 255).max() < 0.03
        x, y = (told[:, 0] - 0.5) * size[0], told[:, 1] * size[1]
        ways = photo.camera.rays(np.stack([column + 0.5, row + 0.5], 1))
        height = photo.camera.centre[1] - y  # where the ray comes down to y its x is the one told
        clear = np.abs(ways[:, 1]) > 0.15
        t = -height[clear] / ways[clear, 1]
        found = photo.camera.centre[0] + t * ways[clear, 0]
        if clear.sum() > 20:
            assert np.median(np.abs(found - x[clear])) < 0.03


def test_it_can_be_written_and_read_as_any_capture(tmp_path):
    capture, _ = read_thuman(thuman(tmp_path)[0], STUDIO, consent=True)
    write_capture(capture, tmp_path / "out")
    assert np.array_equal(read_capture(tmp_path / "out").photos[1].rgb, capture.photos[1].rgb)
    with pytest.raises(DataError, match="consent"):
        write_capture(replace(capture, consent=False), tmp_path / "other")


SIDEWAYS = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


@pytest.mark.parametrize(
    ("changes", "words"), [({"scale": 1000}, "high"), ({"scale": 0.01}, "metres"), ({"turn": SIDEWAYS}, "is y up")]
)
def test_other_units_and_axes_are_refused(tmp_path, changes, words):
    with pytest.raises(DataError, match=words):
        read_thuman(thuman(tmp_path, **changes)[0], STUDIO, consent=True)


def changed(folder, name, old, new):
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("0007.obj", "f 1/1", "f 0/1", "names a `v` other than"),
        ("0007.obj", "f 1/1", "f 1/999999", "names a `vt` other than"),
        ("0007.obj", "f 1/1/1", "f 1", "three `v/vt`"),
        ("0007.obj", "f 1/1", "f 1/1 2/2", "make triangles"),
        ("0007.obj", "\nv ", "\nv nan ", "v: found a number that is not finite"),
        ("0007.obj", "\nvt ", "\nvt x ", "vt: found other than 2 numbers"),
        ("0007.obj", "mtllib material0.mtl", "mtllib ../material0.mtl", "own folder"),
        ("0007.obj", "mtllib material0.mtl", "", "found 0 textures"),
        ("material0.mtl", "map_Kd material0.jpeg", "map_Kd /etc/hostname", "own folder"),
        ("material0.mtl", "map_Kd", "map_Ka", "found 0 textures"),
    ],
)
def test_odd_scans_are_refused(tmp_path, name, old, new, words):
    folder, _ = thuman(tmp_path)
    changed(folder, name, old, new)
    with pytest.raises(DataError, match=words) as error:
        read_thuman(folder, STUDIO, consent=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["0007.obj", "material0.mtl", "material0.jpeg"])
def test_missing_and_damaged_files_are_refused(tmp_path, name):
    folder, _ = thuman(tmp_path)
    (folder / name).write_bytes(b"\xff\xfe\x00odd")
    with pytest.raises(DataError, match=name):
        read_thuman(folder, STUDIO, consent=True)
    (folder / name).unlink()
    with pytest.raises(MissingFileError, match=name):
        read_thuman(folder, STUDIO, consent=True)


def test_a_great_texture_is_brought_down_by_means(tmp_path):
    folder, _ = thuman(tmp_path)
    with Image.open(folder / "material0.jpeg") as small:
        small.resize((2048, 2048), Image.Resampling.NEAREST).save(folder / "material0.jpeg", quality=95)
    fine, _ = read_thuman(folder, STUDIO, consent=True)
    folder, _ = thuman(tmp_path / "again")
    coarse, _ = read_thuman(folder, STUDIO, consent=True)
    off = [np.abs(one.rgb.astype(int) - other.rgb) for one, other in zip(fine.photos, coarse.photos, strict=True)]
    assert np.mean(off) < 2
