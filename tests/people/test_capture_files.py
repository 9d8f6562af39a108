import json
import shutil
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fedloom.base.errors import DataError, MissingFileError
from fedloom.people.capture_files import read_capture, read_captures, write_capture
from fedloom.people.captures import Parse
from fedloom.people.labels import LABELS
from fedloom.people.scene import scene_of
from support.people_runs import person


def capture(name="anna", parse=True):
    made = person(1, 48)[0]
    drawn = np.random.default_rng(0)
    photos = []
    for photo in made.photos:
        likely = drawn.dirichlet(np.ones(len(LABELS)), photo.mask.shape).transpose(2, 0, 1)
        photos.append(replace(photo, parse=Parse(likely.astype(np.float32)) if parse else None))
    return replace(made, name=name, photos=tuple(photos), studio="north")


@pytest.fixture
def folder(tmp_path):
    write_capture(capture(), tmp_path / "anna")
    return tmp_path / "anna"


def entry(folder, **changes):
    table = json.loads((folder / "capture.json").read_text())
    (folder / "capture.json").write_text(json.dumps({k: v for k, v in (table | changes).items() if v is not None}))
    return table


def refused(folder, *words, kind=DataError):
    with pytest.raises(kind) as error:
        read_capture(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_what_was_written_is_read_and_written_again_in_the_same_bytes(folder, tmp_path):
    made, found = capture(), read_capture(folder)
    assert (found.name, found.studio, found.consent) == ("anna", "north", True)
    assert scene_of(found).key == scene_of(made).key  # a hash of pictures, masks and cameras
    for one, other in zip(found.photos, made.photos, strict=True):
        np.testing.assert_allclose(one.parse.probabilities, other.parse.probabilities, atol=2e-3)
        np.testing.assert_allclose(one.parse.probabilities.sum(0), 1, atol=1e-6)
    write_capture(made, tmp_path / "again")
    files = sorted(path.name for path in folder.iterdir())
    assert files == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert all((folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in files)


def test_a_capture_without_parses_has_none(tmp_path):
    write_capture(capture(parse=False), tmp_path / "anna")
    assert [photo.parse for photo in read_capture(tmp_path / "anna").photos] == [None] * 5


def test_labels_of_a_named_parser_are_read_from_pictures_and_from_arrays_with_a_confidence(folder):
    entry(folder, parser="atr")
    labels = np.zeros((48, 48), np.uint8)
    labels[:, 24:] = 6  # trousers
    picture = Image.fromarray(labels, "L")
    picture.save(folder / "parse_00.png")
    palette = Image.fromarray(labels, "P")
    palette.putpalette([0, 0, 0] * 256)
    palette.save(folder / "parse_01.png")
    np.savez(folder / "parse_02.npz", labels=labels, confidence=np.full(labels.shape, 0.4, np.float32))
    for view in (0, 1, 3, 4):
        (folder / f"parse_{view:02d}.npz").unlink()
    found = [photo.parse for photo in read_capture(folder).photos]
    assert found[3] is None
    for parse in found[:3]:
        assert (parse.labels == np.where(labels == 6, 5, 0)).all()
    assert np.unique(found[0].probabilities).tolist() == [0, 1]
    np.testing.assert_allclose(found[2].probabilities[:, 0, 0], [0.5, 0.1, 0.1, 0.1, 0.1, 0.1], atol=1e-6)


def test_likelihoods_of_a_named_parser_are_summed(folder):
    entry(folder, parser="pascal")  # background, head, torso, two of arms, two of legs
    likely = np.array([0.1, 0.2, 0.05, 0.15, 0.1, 0.3, 0.1])[:, None, None] * np.ones((7, 48, 48))
    for view in range(5):
        np.savez(folder / f"parse_{view:02d}.npz", probabilities=likely)
    found = read_capture(folder).photos[2].parse.probabilities[:, 5, 7]
    np.testing.assert_allclose(found, [0.1, 0.45, 0, 0, 0.05, 0.4], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"consent": None}, ("consent", "found none")),
        ({"consent": False}, ("consent", "true")),
        ({"consent": "yes"}, ("consent: found 'yes'", "true or false")),
        ({"format": 2}, ("format: found 2",)),
        ({"units": "mm"}, ("units: found 'mm'",)),
        ({"units": None}, ("units: missing",)),
        ({"name": 7}, ("name: found 7", "text")),
        ({"name": ""}, ("name: found none",)),
        ({"cameras": {}}, ("cameras: found {}", "a list")),
        ({"cameras": [{"K": 1}]}, ("cameras[0]",)),
        ({"parser": "lipp"}, ("parse_00.npz", "'lipp'", "Did you mean 'lip'")),
        ({"lens": 1}, ("lens: unknown key",)),
    ],
)
def test_odd_entries_are_refused_by_their_key(folder, changes, words):
    entry(folder, **changes)
    refused(folder, *words)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("K", [[1, 2], [3, 4]], "cameras[1].K: found rows of [2, 2] numbers, allowed are 3 rows"),
        ("R", [[1, 0, 0], [0, 1, "0"], [0, 0, 1]], "cameras[1].R[1][2]: found '0', allowed is a number"),
        ("t", [0, 1], "cameras[1].t: found rows of [2]"),
        ("height", 0, "cameras[1].height: found 0"),
        ("width", 48.0, "cameras[1].width: found 48.0, allowed is a whole number"),
        ("height", 64, "view 1: found a picture of 48 x 48 (rows x columns), its camera has 64 x 48"),
    ],
)
def test_odd_cameras_are_refused_by_their_key(folder, key, value, words):
    cameras = entry(folder)["cameras"]
    cameras[1][key] = value
    entry(folder, cameras=cameras)
    refused(folder, words)


@pytest.mark.parametrize(("scale", "words"), [(1000, "millimetres"), (0.001, "another unit")])
def test_a_shift_in_another_unit_is_refused(folder, scale, words):
    cameras = entry(folder)["cameras"]
    entry(folder, cameras=[one | {"t": [scale * number for number in one["t"]]} for one in cameras])
    refused(folder, words)


def test_a_person_far_from_the_origin_is_refused(folder):
    cameras = entry(folder)["cameras"]
    aside = np.array([5.0, 0, 0])
    entry(folder, cameras=[one | {"t": (np.array(one["t"]) - np.array(one["R"]) @ aside).tolist()} for one in cameras])
    refused(folder, "found a person at [5.0", "origin")


@pytest.mark.parametrize("text", ["", "{", "[]", "\ud800", "[" * 100_000, '{"format": NaN'])
def test_damaged_json_is_refused(folder, text):
    (folder / "capture.json").write_bytes(text.encode(errors="surrogatepass"))
    refused(folder, "capture.json")


def test_too_few_photographs_are_refused(folder, tmp_path):
    cameras = entry(folder)["cameras"]
    entry(folder, cameras=cameras[:1])
    refused(folder, "view_01.png: has no camera")
    for view in range(1, 5):
        (folder / f"view_{view:02d}.png").unlink()
    refused(folder, "found 1 photograph, allowed are 3 or more, better 4 to 8")
    with pytest.raises(DataError, match="found 2 photographs"):
        write_capture(replace(capture(), photos=capture().photos[:2]), tmp_path / "few")
    assert not (tmp_path / "few").exists()


@pytest.mark.parametrize("name", ["capture.json", "view_03.png", "mask_03.png"])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    refused(folder, name, kind=MissingFileError)


def test_odd_pictures_are_refused(folder):
    image = Image.open(folder / "view_03.png")
    image.convert("RGBA").save(folder / "view_03.png")
    refused(folder, "view_03.png", "RGBA")
    image.convert("L").save(folder / "view_03.png")
    refused(folder, "view_03.png", "found a picture of colours L, allowed is RGB")
    image.resize((48, 40)).save(folder / "view_03.png")
    refused(folder, "view 3", "40 x 48", "its mask has 48 x 48")
    image.save(folder / "view_03.png")
    image.save(folder / "mask_03.png")
    refused(folder, "mask_03.png", "found a picture of colours RGB, allowed is grey")


def test_photographs_of_several_sizes_are_refused(tmp_path):
    made = capture()
    other = person(1, 40)[0].photos[0]
    with pytest.raises(DataError, match=r"view 2: found a picture of 40 x 40 .* view 0 has 48 x 48"):
        write_capture(replace(made, photos=(*made.photos[:2], other)), tmp_path / "anna")


def test_a_view_without_a_person_is_refused(folder):
    Image.new("L", (48, 48)).save(folder / "mask_02.png")
    refused(folder, "view 2", "0.00%", "0.5%")


@pytest.mark.parametrize("name", ["view_01.png", "mask_01.png", "parse_01.npz"])
@pytest.mark.parametrize("keep", [0, 20, 0.5, 0.8])
def test_cut_files_are_refused(folder, name, keep):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    refused(folder, name)


HALF = np.full((6, 48, 48), 0.5, np.float32)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"probabilities": HALF}, "sum of 1"),
        ({"probabilities": np.full((6, 48, 48), np.nan)}, "sum of 1"),
        ({"probabilities": HALF[:5] * 0.4}, "(5, 48, 48)"),
        ({"probabilities": HALF[:, :40] / 3}, "its parse has 40 x 48"),
        ({"probabilities": np.zeros((6, 48, 48), object)}, "plain arrays"),
        ({"labels": np.zeros((48, 48), int)}, "found ['labels']"),
        ({"labels": np.full((48, 48), 6), "confidence": np.ones((48, 48))}, "found label 6"),
        ({"labels": np.zeros((48, 48), int), "confidence": np.full((48, 48), 1.1)}, "from 0 to 1"),
        ({"labels": np.zeros((48, 48), int), "confidence": np.ones((48, 40))}, "one for each pixel"),
        ({"labels": np.zeros((48, 48)), "confidence": np.ones((48, 48))}, "whole numbers"),
    ],
)
def test_odd_parses_are_refused(folder, arrays, words):
    np.savez(folder / "parse_04.npz", **arrays)
    refused(folder, words)


def test_a_small_file_of_large_arrays_is_refused_before_it_is_unpacked(folder, monkeypatch):
    monkeypatch.setattr("fedloom.people.array_files._LARGEST", 2**20)  # a test of 2**30 takes 5 s
    huge = np.zeros((2**20, 16), np.uint8)
    np.savez_compressed(folder / "parse_01.npz", labels=huge, confidence=np.ones((48, 48), np.float32))
    assert (folder / "parse_01.npz").stat().st_size < 2**15
    tracemalloc.start()
    refused(folder, "parse_01.npz", "bytes of arrays, allowed are 1048576")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < huge.nbytes / 4


def test_two_parses_of_a_view_are_refused(folder):
    Image.new("L", (48, 48)).save(folder / "parse_02.png")
    refused(folder, "parse_02.png", "one of them")


def test_captures_are_read_by_the_names_of_their_folders_and_two_of_one_name_refused(tmp_path):
    with pytest.raises(DataError, match="found no capture"):
        read_captures(tmp_path)
    for name in ("b", "a"):
        write_capture(capture(name), tmp_path / name)
    (tmp_path / "notes").mkdir()
    shutil.copytree(tmp_path / "a", tmp_path / ".a.old")  # what a kill leaves while a capture is written anew
    assert [one.name for one in read_captures(tmp_path)] == ["a", "b"]
    write_capture(capture("a"), tmp_path / "c")
    with pytest.raises(DataError, match=r"c/capture\.json: name: found a second capture called 'a'"):
        read_captures(tmp_path)


OPENED = []
sys.addaudithook(lambda event, args: OPENED.append(str(args[0])) if event == "open" else None)


def test_what_is_true_is_not_opened_and_without_consent_no_picture(folder):
    (folder / "truth").mkdir()
    (folder / "truth" / "truth.npz").write_bytes(b"odd")
    OPENED.clear()
    read_captures(folder.parent)
    assert len([one for one in OPENED if str(folder) in one]) == 16 and not any("truth" in one for one in OPENED)
    entry(folder, consent=False)
    OPENED.clear()
    refused(folder, "consent")
    assert [one for one in OPENED if str(folder) in one] == [str(folder / "capture.json")]
