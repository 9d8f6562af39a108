import numpy as np
import pytest
from scipy.stats import rankdata

from fedloom.base.errors import ConfigError
from fedloom.people.noise import ParserNoise, _jittered, noisy_parses

NONE = {"jitter_px": 0.0, "rate": 0.0, "p_fail": 0.0, "speckle": 0.0}


def parts(n_views=6, size=128):
    """A person of boxes: hair, skin, top, trousers, shoes, one below the other."""
    labels = np.zeros((n_views, size, size), np.int64)
    for label, first, last, half in (
        (2, 8, 16, 7),
        (1, 16, 26, 7),
        (4, 26, 66, 20),
        (5, 66, 112, 14),
        (3, 112, 120, 15),
    ):
        labels[:, first:last, size // 2 - half : size // 2 + half] = label
    return labels


def told(labels, *names, **settings):
    parses = noisy_parses(labels, ParserNoise(**(NONE | settings)), *(names or ("p", 0)))
    return np.stack([one.labels for one in parses]), np.stack([one.probabilities for one in parses])


def confidences(probabilities):
    """What was put in: the likeliest has the confidence and a sixth of the rest."""
    return (probabilities.max(1) * 6 - 1) / 5


def auc(score, right):
    rank = rankdata(score)
    return (rank[right].sum() - right.sum() * (right.sum() + 1) / 2) / (right.sum() * (~right).sum())


def test_a_parser_that_does_not_err_gives_the_labels_back():
    labels = parts()
    found, probabilities = told(labels)
    assert (found == labels).all()
    np.testing.assert_allclose(confidences(probabilities), 0.82, atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.7])
def test_blobs_cover_the_rate_asked_and_nothing_of_the_background(rate):
    labels = parts()
    found, _ = told(labels, rate=rate)
    person = labels > 0
    assert ((found == labels) | person).all() and (found[person] > 0).all()
    assert np.abs((found != labels).sum((1, 2)) / person.sum((1, 2)) - rate).max() < 1 / person[0].sum()
    assert len({tuple(np.argwhere(one)[0]) for one in found != labels}) > 1  # views err in other places


@pytest.mark.parametrize("mean_px", [0.8, 1.6, 3.0])
def test_edges_move_by_the_mean_asked(mean_px):
    ramp = np.tile(np.arange(128), (40, 128, 1))  # a flow shows as what each pixel took its number from
    drawn = np.random.default_rng(0)
    off = np.stack([_jittered(one, mean_px, drawn) for one in ramp]) - ramp
    # A flow of random ways whose length is m on the mean goes 2 m / pi sideways; whole pixels round it.
    assert np.abs(off).mean() == pytest.approx(2 * mean_px / np.pi, rel=0.12)
    labels = parts()
    found, _ = told(labels, jitter_px=mean_px)
    edge = (labels[:, :, 1:] != labels[:, :, :-1]).sum()
    assert 0 < (found != labels).sum() < 12 * mean_px * edge


def test_classes_are_confused_in_whole_views_as_often_as_asked():
    labels = parts(400, 64)
    found, _ = told(labels, p_fail=0.3)
    failed = [one for one in range(400) if (found[one] != labels[one]).any()]
    assert 0.23 < len(failed) / 400 < 0.37  # 3 deviations
    for one in failed[:40]:
        (taken,) = np.unique(labels[one][found[one] != labels[one]])
        assert len(np.unique(found[one][labels[one] == taken])) == 1  # the whole class is called another one
    assert (told(labels[:5], p_fail=1.0)[0] != labels[:5]).any((1, 2)).all()


def test_confidence_tells_where_the_parser_is_wrong_as_well_as_its_calibration_says():
    labels, found = parts(), {}
    for calib in (0.3, 0.6, 1.0):
        said, probabilities = told(labels, rate=0.2, calib=calib, speckle=0.12)
        right, confidence = said == labels, confidences(probabilities)
        found[calib] = auc(confidence.ravel(), right.ravel())
        assert confidence[right].mean() == pytest.approx(0.82, abs=0.02)
        assert confidence[~right].mean() == pytest.approx(1 - 0.6 * calib, abs=0.03)
    assert 0.45 < found[0.3] < 0.55 < 0.75 < found[0.6] < 0.95 < found[1.0]


def test_the_noise_of_a_confidence_is_smooth_and_of_the_deviation_asked():
    confidence = confidences(told(parts(), speckle=0.05)[1])
    assert confidence.std() == pytest.approx(0.05, rel=0.02)
    assert np.abs(np.diff(confidence, axis=1)).mean() < 0.02


def test_the_same_names_say_the_same_and_others_do_not():
    labels, settings = parts(2), {"jitter_px": 1.6, "rate": 0.2, "p_fail": 0.5, "speckle": 0.12}
    first, again, other = (told(labels, *names, **settings)[1] for names in (("a", 1), ("a", 1), ("a", 2)))
    assert (first == again).all() and (first != other).any()


def test_a_view_without_a_person_stays_one_and_odd_settings_are_refused():
    empty = np.zeros((2, 32, 32), int)
    assert (told(empty, rate=0.3, p_fail=1.0, jitter_px=2.0)[0] == 0).all()
    for odd in ({"rate": 1.0}, {"p_fail": -0.1}, {"calib": 1.1}, {"jitter_px": float("nan")}):
        with pytest.raises(ConfigError, match=next(iter(odd))):
            ParserNoise(**odd)
