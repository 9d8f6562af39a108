"""Floating-point rows as whole numbers: errors, limits, weights, and what was clipped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.base.errors import ConfigError, DataError, TrainingError
from fedloom.secure_sum.numbers import Numbers
from support.secure_sums import seeded, terms_of
from support.whole_sum import simulate


def summed(numbers, rows, weights=None):
    weights = weights or [1.0] * len(rows)
    encoded = [numbers.encode(row, weight) for row, weight in zip(rows, weights, strict=True)]
    return numbers.decode(np.sum(encoded, axis=0, dtype=np.uint32), len(rows))


def test_a_sum_of_ten_at_twenty_bits_is_off_by_at_most_ten_half_steps():
    rows = [np.random.default_rng(n).uniform(-1, 1, 10_000).astype(np.float32) for n in range(10)]
    error = np.abs(summed(Numbers(10, 20, 1.0), rows).sum_P - np.sum(rows, axis=0, dtype=np.float64)).max()
    assert 1e-6 < error <= 4.8e-6


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(8, 20), st.floats(1e-4, 1e4), st.integers(0, 99))
def test_any_sum_is_off_by_at_most_half_a_step_a_row(n, bits, clip, seed):
    numbers = Numbers(n, bits, clip)
    rows = [np.random.default_rng((seed, one)).uniform(-clip, clip, 50).astype(np.float32) for one in range(n)]
    found = summed(numbers, rows).sum_P
    exact = np.sum(rows, axis=0, dtype=np.float64)
    # Half a step of each, a whole one for a number at the very top, and float32's own rounding of the result.
    assert (np.abs(found - exact) <= n * numbers.step + 1e-7 * np.abs(exact)).all()
    inside = np.all([row < clip - numbers.step for row in rows], axis=0)
    assert (np.abs(found - exact) <= n * numbers.step * 0.5001 + 1e-7 * np.abs(exact))[inside].all()


@pytest.mark.parametrize(("clients", "bits"), [(1000, 21), (1024, 21), (1, 31), (2**31 // 2**8, 8)])
def test_no_sum_of_the_largest_numbers_wraps(clients, bits):
    numbers = Numbers(clients, bits, 1.0, counted=False)
    ends = numbers.encode(np.array([1, -1], dtype=np.float32)).view(np.int32).astype(np.int64) * clients
    assert ends.tolist() == [clients * (2**bits - 1), -clients * 2**bits]
    whole = numbers.decode(ends.astype(np.uint32), clients).sum_P
    assert whole == pytest.approx([clients * (1 - 2.0**-bits), -clients], rel=1e-6)


@pytest.mark.parametrize(("clients", "bits", "most"), [(1000, 22, 21), (1025, 21, 20), (2, 31, 30), (0, 4, 31)])
def test_more_bits_than_a_sum_has_room_for_are_refused(clients, bits, most):
    with pytest.raises(ConfigError, match=f"take {most} bits"):
        Numbers(clients, bits, 1.0)


@pytest.mark.parametrize("wrong", [{"clip": 0.0}, {"clip": float("inf")}, {"norm": 0.0}, {"clip": float("nan")}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="allowed are numbers > 0"):
        Numbers(**{"clients": 3, "bits": 8, "clip": 1.0, **wrong})


def test_clipped_numbers_are_counted_under_the_mask_and_told_above_one_in_a_thousand():
    terms = terms_of(4, size=1002, min_clients=3)
    numbers = Numbers(4, 20, 1.0)
    assert numbers.size(1000) == terms.size
    rows = {name: np.zeros(1000, dtype=np.float32) for name in terms.clients}
    for place, name in enumerate(terms.clients):
        rows[name][: place + 1] = 3.0
        rows[name][-1] = -1.0  # at the limit, not beyond it
    encoded = {name: numbers.encode(row) for name, row in rows.items()}
    told = simulate(encoded, terms, lost_at={terms.clients[0]: "mask"}, random=seeded(0))
    total = numbers.decode(told.sum_S, len(told.survivors))
    assert total.saturated == 2 + 3 + 4
    assert "found 0.30% of the numbers clipped at 1, allowed is up to 0.1%; raise the clip" in total.warning
    assert total.sum_P[0] == pytest.approx(3, abs=1e-5)
    assert total.sum_P[-1] == pytest.approx(-3)


def test_one_in_a_thousand_is_no_warning():
    row = np.zeros(1000, dtype=np.float32)
    row[0] = 2
    assert (told := summed(Numbers(2, 20, 1.0), [row, row])).saturated == 2
    assert told.warning == ""


def test_counts_beyond_one_digit_are_exact():
    numbers = Numbers(3, 8, 1.0)
    rows = [np.full(n, 2, dtype=np.float32) for n in (1000, 1000, 1000)]
    rows[1][:300] = 0
    assert summed(numbers, rows).saturated == 2700


def test_rows_too_long_for_the_count_are_refused():
    numbers = Numbers(2**28, 1, 1.0)
    with pytest.raises(DataError, match="raise the bits"):
        numbers.encode(np.zeros(32, dtype=np.float32))


def test_weighted_sums_give_the_weighted_mean():
    rows = [np.random.default_rng(n).uniform(-1, 1, 100).astype(np.float32) for n in range(3)]
    weights = [1.0, 0.25, 0.5]
    told = summed(Numbers(3, 20, 1.0, weighted=True), rows, weights)
    assert told.weight == pytest.approx(1.75, abs=1e-5)
    assert told.mean_P() == pytest.approx(np.average(rows, axis=0, weights=weights), abs=1e-5)


def test_equal_weights_give_the_mean():
    rows = [np.full(5, value, dtype=np.float32) for value in (0.5, -0.25, 0.5)]
    for weighted in (False, True):
        told = summed(Numbers(3, 20, 1.0, weighted=weighted), rows)
        assert told.weight == pytest.approx(3, abs=1e-5)
        assert told.mean_P() == pytest.approx(np.full(5, 0.25), abs=1e-5)


@pytest.mark.parametrize(("weighted", "weight"), [(True, 0.0), (True, 1.5), (True, float("nan")), (False, 0.5)])
def test_other_weights_are_refused(weighted, weight):
    with pytest.raises(DataError, match="found weight"):
        Numbers(3, 8, 1.0, weighted=weighted).encode(np.zeros(3, dtype=np.float32), weight)


def test_long_rows_are_scaled_to_the_norm_and_no_longer_in_units_than_reach_says():
    numbers = Numbers(3, 12, 1.0, norm=2.0, counted=False)
    row = np.random.default_rng(0).normal(size=400).astype(np.float32)
    told = summed(numbers, [row])
    assert np.linalg.norm(told.sum_P) == pytest.approx(2.0, rel=1e-3)
    assert told.sum_P == pytest.approx(row * 2 / np.linalg.norm(row), abs=numbers.step)


@settings(max_examples=60)
@given(st.integers(1, 400), st.integers(2, 12), st.floats(0.01, 50), st.booleans(), st.integers(0, 99))
def test_no_row_is_longer_than_reach(size, bits, norm, stochastic, seed):
    numbers = Numbers(3, bits, 1.0, norm=norm, counted=False, stochastic=stochastic)
    row = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    rounding = ("a", seed) if stochastic else ()
    units = numbers.encode(row, rounding=rounding).view(np.int32).astype(np.float64)
    assert np.linalg.norm(units) <= numbers.reach(size)


def test_rounding_at_random_reaches_twice_as_far_as_to_the_nearest():
    nearest, random = (Numbers(3, 8, 1.0, norm=0.5, stochastic=one).reach(400) for one in (False, True))
    assert nearest == pytest.approx(128 + 10)
    assert random == pytest.approx(128 + 20)


def test_stochastic_rounding_is_without_bias_and_named():
    numbers = Numbers(3, 8, 1.0, counted=False, stochastic=True)
    row = np.full(40_000, 0.3 / 2**8, dtype=np.float32)
    units = numbers.encode(row, rounding=("round", 1))
    assert set(units.tolist()) == {0, 1}
    assert units.mean() == pytest.approx(0.3, abs=0.01)
    assert (units == numbers.encode(row, rounding=("round", 1))).all()
    assert (units != numbers.encode(row, rounding=("round", 2))).any()


@pytest.mark.parametrize(("stochastic", "rounding"), [(True, ()), (False, ("a",))])
def test_rounding_is_named_if_and_only_if_it_is_stochastic(stochastic, rounding):
    with pytest.raises(DataError, match="draws of rounding"):
        Numbers(3, 8, 1.0, stochastic=stochastic).encode(np.zeros(3, dtype=np.float32), rounding=rounding)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused(odd):
    with pytest.raises(TrainingError, match="NaN or infinity"):
        Numbers(3, 8, 1.0).encode(np.array([0, odd], dtype=np.float32))


@pytest.mark.parametrize("row", [np.zeros(3), np.zeros((1, 3), np.float32), np.zeros(3, np.int32)])
def test_rows_of_another_kind_are_refused(row):
    with pytest.raises(DataError, match="allowed is float32"):
        Numbers(3, 8, 1.0).encode(row)


@pytest.mark.parametrize(("total", "rows"), [(np.zeros(1, np.uint32), 2), (np.zeros(5, np.int64), 2),
                                             (np.zeros(5, np.uint32), 0), (np.zeros(5, np.uint32), 4)])  # fmt: skip
def test_impossible_sums_are_refused(total, rows):
    with pytest.raises(DataError, match="give the sum as it came"):
        Numbers(3, 8, 1.0).decode(total, rows)


def test_the_words_for_the_terms_tell_every_setting_apart():
    told = {Numbers(3, 8, 1.0, **one).told() for one in ({}, {"norm": 2.0}, {"weighted": True}, {"counted": False})}
    assert len(told) == 4
