import numpy as np
import pytest
from PIL import Image

from fedloom.base.errors import DataError, MissingFileError
from fedloom.people.labels import PARSERS, common
from fedloom.people.readers.schp import with_schp
from support.people_runs import person


def capture():
    return person(1, 48)[0]


CLASSES = {"lip": 20, "atr": 18, "pascal": 7}


def written(folder, classes, *, scores=False):
    """What its extractor writes; returns the labels."""
    drawn = np.random.default_rng(0)
    told = []
    for view in range(len(capture().photos)):
        scores_HWK = drawn.normal(0, 4, (48, 48, classes)).astype(np.float32)
        told.append(scores_HWK.argmax(2).astype(np.uint8))
        picture = Image.fromarray(told[-1])
        picture.putpalette(drawn.integers(0, 255, 3 * classes).astype(np.uint8).tobytes())
        picture.save(folder / f"view_{view:02d}.png")
        if scores:
            np.save(folder / f"view_{view:02d}.npy", scores_HWK)
    return np.stack(told)


@pytest.mark.parametrize("parser", CLASSES)
def test_palettes_are_read_by_the_table_of_the_parser(tmp_path, parser):
    told = written(tmp_path, CLASSES[parser])
    found = with_schp(capture(), tmp_path, parser)
    labels = np.stack([photo.parse.labels for photo in found.photos])
    assert (labels == common(told, parser, "here")).all() and len(np.unique(labels)) > 3
    assert all(np.isin(photo.parse.probabilities, (0, 1)).all() for photo in found.photos)
    assert found.photos[0].rgb is capture().photos[0].rgb and capture().photos[0].parse is None


@pytest.mark.parametrize("parser", CLASSES)
def test_scores_become_likelihoods_summed_over_each_class(tmp_path, parser):
    written(tmp_path, CLASSES[parser], scores=True)
    found = with_schp(capture(), tmp_path, parser).photos[2].parse.probabilities
    scores = np.load(tmp_path / "view_02.npy")[11, 7].astype(float)
    likely = np.exp(scores) / np.exp(scores).sum()
    right = [likely[np.array(PARSERS[parser]) == one].sum() for one in range(6)]
    np.testing.assert_allclose(found[:, 11, 7], right, atol=1e-6)


def test_great_scores_do_not_overflow(tmp_path):
    written(tmp_path, 7)
    np.save(tmp_path / "view_00.npy", np.tile(np.array([0, 0, 3e4, 0, 0, 1e4, 0], np.float32), (48, 48, 1)))
    found = with_schp(capture(), tmp_path, "pascal").photos[0].parse.probabilities
    assert (found[4] == 1).all() and (found.sum(0) == 1).all()


def refused(folder, parser, *words, kind=DataError):
    with pytest.raises(kind) as error:
        with_schp(capture(), folder, parser)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_odd_files_are_refused(tmp_path):
    written(tmp_path, 20)
    refused(tmp_path, "pascal", "view_00.png", "'pascal' has 0 to 6")
    refused(tmp_path, "lipp", "Did you mean 'lip'")
    refused(tmp_path / "none", "lip", "view_00.png", kind=MissingFileError)
    Image.new("P", (40, 48)).save(tmp_path / "view_03.png")
    refused(tmp_path, "lip", "view_03.png", "48 x 40", "the picture has 48 x 48")
    Image.new("RGB", (48, 48)).save(tmp_path / "view_03.png")
    refused(tmp_path, "lip", "view_03.png", "RGB")


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (np.zeros((48, 48, 18), np.float32), "[20, H, W]"),
        (np.zeros((20, 48, 48), np.float32), "found label"),
        (np.zeros((48, 48), np.float32), "[H, W, K]"),
        (np.full((48, 48, 20), np.nan), "finite"),
        (np.zeros((48, 48, 20), np.int64), "int64"),
        (np.zeros((40, 48, 20), np.float32), "the picture has 48 x 48"),
        (np.array({"a": 1}), "plain arrays"),
    ],
)
def test_odd_scores_are_refused(tmp_path, scores, words):
    written(tmp_path, 20)
    np.save(tmp_path / "view_00.npy", scores)
    refused(tmp_path, "lip", "view_00.npy", words)
