"""Intervals cover what they should, and pairs are tighter than their parts."""

import numpy as np
import pytest
from scipy import stats

from fedloom.errors import DataError
from fedloom.statistics import bootstrap, student_interval, worst_share


def test_bootstrap_covers_the_true_mean_about_95_times_in_100():
    random = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        total = (random.random((1, 80)) < 0.3).astype(float)
        interval = bootstrap(total, np.ones_like(total), resamples=300, seed=seed)
        hits += interval.low <= 0.3 <= interval.high
    assert 176 <= hits <= 199  # binomial(200, 0.94) within four standard deviations, and not always


def test_rows_of_clients_widen_the_interval():
    random = np.random.default_rng(1)
    total = (random.random((10, 50)) < random.random((10, 1))).astype(float)
    rows = bootstrap(total, np.ones_like(total), resamples=500)
    flat = bootstrap(total.reshape(1, -1), np.ones((1, 500)), resamples=500)
    assert rows.high - rows.low > 1.5 * (flat.high - flat.low)


def test_weights_make_a_ratio_of_sums():
    interval = bootstrap(np.array([[1.0, 9.0]]), np.array([[1.0, 3.0]]), resamples=50)
    assert interval.value == 2.5


def test_no_question_is_refused():
    with pytest.raises(DataError, match="0 questions"):
        bootstrap(np.zeros((1, 0)), np.zeros((1, 0)), resamples=10)


@pytest.mark.parametrize("n", [2, 5, 30])
def test_student_interval_equals_scipy(n):
    values = np.random.default_rng(n).normal(size=n)
    ours = student_interval(list(values))
    low, high = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-3)


def test_one_repetition_has_no_interval():
    with pytest.raises(DataError, match="at least two seeds"):
        student_interval([1.0])


def test_worst_decile_of_twenty_is_the_mean_of_the_two_lowest():
    assert worst_share(list(range(20))) == 0.5
