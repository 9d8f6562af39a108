from functools import cached_property

import numpy as np
import pytest

from fedloom.base.errors import ConfigError, DataError
from fedloom.people.ablation import ARMS, Condition, ablation
from fedloom.people.calibration import left_out
from fedloom.people.factors import boundary, confidence, incidence, sights, tempered, visibility
from fedloom.people.labels import HAIR, LOWER, SHOES, SKIN, UPPER
from fedloom.people.layer_metrics import mean_label_iou
from fedloom.people.potts import SurfacePoints, affinity, mean_field, softmax, surface_points
from fedloom.people.scgs import FAIR_BASELINE, VISIBLE_VOTE, Separation, separate
from support import banded

pytestmark = pytest.mark.slow


class Scene:
    """Made when it is first asked for: to collect tests must cost nothing."""

    @cached_property
    def mesh(self):
        return banded.person(0.025)

    @cached_property
    def where(self):
        return surface_points(self.mesh)

    @cached_property
    def seen(self):
        return banded.scene(6, 96)


S = Scene()


def photos(rate=0.0, calibration=1.0, seed=0, failed=(), labels=None):
    return banded.photographed(S.seen[0], S.seen[2] if labels is None else labels, rate, calibration, seed, failed)


def miou(found, classes=(SKIN, HAIR, UPPER, LOWER)):
    return mean_label_iou(found.labels_N, S.mesh.labels, S.where.areas_N, classes)


# ------------------------------------------------------------------------------------------------------------ factors


def test_each_factor_is_its_formula_point_by_point():
    shots = photos(0.2)
    told = sights(S.where, shots, S.seen[1])
    seen, turned, near = visibility(told, 0.02, 0.02, 0.25), incidence(told, 0.05), boundary(told, 1.5)
    random = np.random.default_rng(0)
    for point in random.integers(len(S.where.points_N3), size=60):
        for view, camera in enumerate(S.seen[0]):
            pixel, depth = camera.project(S.where.points_N3[point : point + 1])
            column, row = np.floor(pixel[0]).astype(int)
            ray = S.where.points_N3[point] - camera.centre
            cosine = -(S.where.normals_N3[point] @ ray) / np.linalg.norm(ray)
            assert turned[view, point] == pytest.approx(np.clip(cosine, 0.05, 1), abs=1e-6)
            assert told.cosine_VN[view, point] == pytest.approx(cosine, abs=1e-6)
            if np.isfinite(S.seen[1][view, row - 1 : row + 2, column - 1 : column + 2]).all():
                behind = depth[0] - S.seen[1][view, row, column]
                right = np.exp(-max(0, behind - 0.02) / 0.02)
                floor = 0.25 if shots[view].mask[row, column] > 127 else 0.0
                spread = np.ptp(S.seen[1][view, row - 1 : row + 2, column - 1 : column + 2])
                assert seen[view, point] == pytest.approx(max(right, floor), abs=min(1, 0.02 + 60 * spread))
    assert np.allclose(near, 1 - np.exp(-((told.edge_px_VN / 1.5) ** 2)))


def test_confidence_is_one_less_the_entropy_and_temperature_sharpens():
    even, sure = np.full((1, 1, 5), 0.2), np.eye(5)[None, :1]
    assert confidence(even, True)[0, 0] == pytest.approx(0) and confidence(sure, True)[0, 0] == pytest.approx(1)
    p = np.array([[[0.7, 0.1, 0.1, 0.05, 0.05]]])
    assert confidence(p, True)[0, 0] == pytest.approx(1 + (p * np.log(p)).sum() / np.log(5))
    assert confidence(p, False)[0, 0] == pytest.approx(0.7)
    assert np.allclose(tempered(p, 0.5), p**2 / (p**2).sum()) and np.allclose(tempered(p, 1.0), p)


def test_a_view_left_out_has_the_field_of_the_others():
    evidence = np.random.default_rng(0).normal(size=(3, 4, 5))
    found = left_out(evidence, np.zeros(5))
    for view in range(3):
        others = np.delete(evidence, view, axis=0).sum(0)
        assert np.allclose(found[view], np.exp(others) / np.exp(others).sum(1, keepdims=True))


# --------------------------------------------------------------------------------------------------------- neighbours


def chain(n):
    points = np.stack([np.arange(n) * 0.01, np.zeros(n), np.zeros(n)], axis=1)
    pairs = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    return SurfacePoints(points, np.tile((0.0, 1.0, 0.0), (n, 1)), np.full(n, 1e-3), pairs)


def test_neighbours_count_by_place_direction_and_colour():
    where = chain(3)
    plain = affinity(where, 0.03, None).toarray()
    assert plain[0, 1] == pytest.approx(np.exp(-((0.01 / 0.03) ** 2))) and plain[0, 2] == 0
    turned = SurfacePoints(
        where.points_N3, np.array([(0, 1, 0), (0, -1, 0), (0, 1, 0.0)]), where.areas_N, where.pairs_E2
    )
    assert affinity(turned, 0.03, None).toarray().max() == 0
    coloured = SurfacePoints(
        where.points_N3,
        where.normals_N3,
        where.areas_N,
        where.pairs_E2,
        np.array([(0.0,) * 3, (0.1, 0, 0), (0.1, 0, 0)]),
    )
    found = affinity(coloured, 0.03, 0.1).toarray()
    assert found[0, 1] == pytest.approx(plain[0, 1] * np.exp(-1)) and found[1, 2] == pytest.approx(plain[1, 2])


def test_a_mean_field_is_its_fixed_point_and_near_the_best_labelling():
    """q = softmax(evidence + strength * A q), after many rounds; and its labels against all of a chain of six."""
    random = np.random.default_rng(3)
    evidence, pull = random.normal(size=(6, 2)), affinity(chain(6), 0.03, None)
    found = mean_field(evidence, pull, 1.2, 200)
    assert np.allclose(softmax(found), softmax(evidence + 1.2 * (pull @ softmax(found))), atol=1e-3)
    best = min(np.ndindex(*(2,) * 6), key=lambda ys: cost(ys, evidence, pull.toarray()))
    mine = tuple(found.argmax(1).tolist())
    assert cost(mine, evidence, pull.toarray()) <= cost(best, evidence, pull.toarray()) + 0.5
    assert np.allclose(mean_field(evidence, pull, 0.0, 5), evidence)


def cost(ys, evidence, pull):
    return -sum(evidence[i, y] for i, y in enumerate(ys)) + 1.2 * sum(
        pull[i, j] * (ys[i] != ys[j]) for i in range(6) for j in range(i)
    )


# ---------------------------------------------------------------------------------------------------------- the whole


def test_without_errors_every_way_is_right():
    assert miou(separate(S.where, photos(), S.seen[1])) > 0.9
    assert miou(separate(S.where, photos(), S.seen[1], FAIR_BASELINE)) > 0.88


@pytest.mark.slow
def test_confidence_that_tells_something_pays_and_none_does_no_harm():
    for calibration, least in ((1.0, 0.02), (0.3, -0.01)):
        gains = []
        for seed in range(3):
            shots = photos(0.2, calibration, seed, failed=(1,))
            arms = Separation(), FAIR_BASELINE
            ours, baseline = (miou(separate(S.where, shots, S.seen[1], arm)) for arm in arms)
            gains.append(ours - baseline)
        assert np.mean(gains) >= least


def test_confidence_is_left_out_where_it_says_the_opposite():
    shots = photos(0.25, 0.0, 1)  # surest where it is wrong: 1 against 0.82
    told, unguarded = separate(S.where, shots, S.seen[1]), separate(S.where, shots, S.seen[1], Separation(guard=False))
    assert told.guarded and not unguarded.guarded
    assert miou(told) >= miou(unguarded) - 0.005


def test_a_view_that_takes_two_classes_for_each_other_loses_weight():
    told = separate(S.where, photos(0.05, 1.0, 0, failed=(2,)), S.seen[1])
    assert told.reliability_V.argmin() == 2


def test_a_class_that_is_hardly_there_is_no_garment():
    """A parser calls 4 % of each picture a lower garment of somebody who has none."""
    bare = np.where(S.seen[2] == LOWER, SKIN, S.seen[2])
    shots = photos(0.04, 1.0, 5, labels=bare)
    told = separate(S.where, shots, S.seen[1])
    assert LOWER not in told.classes and not (told.labels_N == LOWER).any()
    assert SHOES in told.classes or HAIR in told.classes


def test_no_point_is_background_and_shares_sum_to_one():
    told = separate(S.where, photos(0.3, 1.0, 2), S.seen[1])
    assert (told.labels_N > 0).all() and np.allclose(told.shares_NK.sum(1), 1)
    assert np.array_equal(told.log_odds_NK.argmax(1), told.labels_N)


def test_a_vote_of_views_is_a_vote():
    told = separate(S.where, photos(), S.seen[1], VISIBLE_VOTE)
    assert miou(told) > 0.8 and not told.guarded


def test_odd_input_is_refused():
    with pytest.raises(ConfigError, match="priors: found 2, allowed are 5"):
        separate(S.where, photos(), S.seen[1], Separation(priors=(0.5, 0.5)))
    with pytest.raises(DataError, match="parse"):
        separate(S.where, [type(one)(one.rgb, one.mask, one.camera) for one in photos()], S.seen[1])
    with pytest.raises(DataError):
        separate(S.where, photos(), S.seen[1][:, :48])


# ----------------------------------------------------------------------------------------------------------- ablation


@pytest.mark.slow
def test_separation_beats_the_fair_baseline_where_confidence_tells_and_does_no_harm_where_not():
    asked = [Condition(6, 1.0, 0.15), Condition(6, 0.3, 0.15)]
    arms = {name: ARMS[name] for name in ("visible vote", "fair baseline", "SCGS")}
    rows = {(row["calib"], row["arm"]): row for row in ablation(4, asked, "accepted", arms=arms)}
    assert rows[1.0, "SCGS"]["difference"] >= 0.02 and rows[0.3, "SCGS"]["difference"] >= -0.01
    assert rows[1.0, "fair baseline"]["difference"] == 0 and len(rows) == 6
