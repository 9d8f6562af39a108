from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from fedloom.base.errors import ConfigError
from fedloom.people.ablation import ARMS, Condition, ablation, conditions, known_people
from fedloom.people.factors import sights
from fedloom.people.labels import HAIR, LOWER, SKIN, UPPER
from fedloom.people.noise import ParserNoise, noisy_parses
from fedloom.people.scgs import VISIBLE_VOTE, separate

pytestmark = pytest.mark.slow

TWO = {arm: ARMS[arm] for arm in ("visible vote", "fair baseline")}


@cache
def person():
    return known_people(1, 4, "tested", size=80)[0]


def photos(**noise):
    known = person()
    parses = noisy_parses(known.shown.labels_VHW, ParserNoise(**noise), "tested")
    return [replace(photo, parse=parse) for photo, parse in zip(known.photos, parses, strict=True)]


@cache
def rows():
    return tuple(ablation(2, (Condition(4, 1.0, 0.15),), "rows", arms=TWO))


def test_points_lie_where_a_camera_sees_them_and_wear_their_own_colours():
    known = person()
    least = np.full(len(known.labels_N), np.inf)
    for photo, depth in zip(known.photos, known.depth_VHW, strict=True):
        pixel, deep = photo.camera.project(known.where.points_N3)
        column, row = np.floor(pixel).astype(int).clip(1, 78).T
        near = np.stack([depth[row + down, column + across] for down in (-1, 0, 1) for across in (-1, 0, 1)])
        least = np.minimum(least, np.abs(deep - near).min(0))
    assert (least < 0.03).mean() > 0.98 and least.max() < 0.1
    assert {SKIN, HAIR, UPPER, LOWER} <= set(known.labels_N.tolist())
    hair = known.where.colours_N3[known.labels_N == HAIR]
    assert (hair == np.median(hair, axis=0)).all(1).mean() > 0.9  # but where it meets the skin
    assert np.ptp(known.where.colours_N3, axis=0).min() > 0.1


def test_with_all_factors_off_points_are_of_the_class_that_most_of_the_views_that_see_them_tell():
    known, shots = person(), photos(rate=0.2)
    told = sights(known.where, shots, known.depth_VHW)
    found = separate(known.where, shots, known.depth_VHW, VISIBLE_VOTE).labels_N
    clear = (told.person_VN > 0.999) | (told.person_VN == 0)
    clear &= (told.behind_VN < 0.02) | (told.behind_VN > 0.03)
    counted = 0
    for point in np.flatnonzero(clear.all(0)):
        votes = [0] * 6
        for view in range(4):
            if told.person_VN[view, point] and told.behind_VN[view, point] < 0.02:
                votes[told.labels_VN[view, point] + 1] += 1
        if votes.count(max(votes)) == 1:
            assert found[point] == np.argmax(votes)
            counted += 1
    assert counted > 200


def test_each_condition_has_a_row_for_each_arm_with_intervals_about_its_means():
    assert [row["arm"] for row in rows()] == list(TWO)
    for row in rows():
        assert (row["views"], row["calib"], row["rate"]) == (4, 1.0, 0.15)
        for name in ("miou", "difference"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    vote, fair = rows()
    assert fair["difference"] == fair["difference_low"] == fair["difference_high"] == 0
    assert vote["difference"] == pytest.approx(vote["miou"] - fair["miou"])
    assert vote["difference_low"] < vote["difference_high"]


def test_the_same_people_say_the_same_whatever_arms_are_beside_them():
    alone = {"fair baseline": ARMS["fair baseline"]}
    (again,) = ablation(2, (Condition(4, 1.0, 0.15),), "rows", arms=alone)
    assert again == rows()[1]
    (other,) = ablation(2, (Condition(4, 1.0, 0.15),), "others", arms=alone)
    assert other["miou"] != again["miou"]


def test_each_factor_has_an_arm_that_is_the_whole_but_for_one_setting():
    whole = vars(ARMS["SCGS"])
    off = [
        [name for name, value in vars(arm).items() if value != whole[name]]
        for title, arm in ARMS.items()
        if title.startswith("with")
    ]
    assert all(len(names) == 1 for names in off)
    assert {name for (name,) in off} >= {
        *("least_visible", "incidence", "confidence", "boundary", "consistency"),
        *("colour", "calibrate", "guard", "normalise"),
    }
    assert {one.calib for one in conditions()} >= {1.0, 0.3} and len(set(conditions())) == len(conditions())


def test_odd_questions_are_refused_in_a_line():
    asked = (Condition(4, 1.0, 0.15),)
    with pytest.raises(ConfigError, match="rate"):
        Condition(4, 1.0, 1.2)
    for count, arms, message in (
        (1, TWO, "found 1 people"),
        (2, {"SCGS": ARMS["SCGS"]}, "no arm called 'fair baseline'"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            next(ablation(count, asked, "odd", arms=arms))
        assert "\n" not in str(caught.value)
