"""Intervals over seeds: what they share is no repetition, what they do not share is."""

import numpy as np
import pytest
from scipy import stats

from fedloom.base.errors import DataError
from fedloom.evaluation.repetitions import Repetition, mean_interval, repeated_p
from fedloom.evaluation.statistics import ScoreTable


def table(total_CN, clients=None, about=()):
    total_CN = np.atleast_2d(total_CN)
    owners = tuple(f"c{c}" for c in range(len(total_CN))) if len(total_CN) > 1 else ("",)
    return ScoreTable(total_CN, np.ones_like(total_CN), tuple(clients or [""] * total_CN.shape[1]), owners, about)


def over(tables, *, alike=True, data=None, **more):
    names = [0] * len(tables) if alike else range(len(tables))
    whose = names if data is None else data
    seeds = [Repetition(one, questions=name, data=of) for one, name, of in zip(tables, names, whose, strict=True)]
    return mean_interval([seeds], resamples=50, **more)


def drawn(seeds=4, questions=30):
    random = np.random.default_rng(1)
    return (
        random.normal(size=(1, questions))
        + 0.3 * random.normal(size=(seeds, 1))
        + random.normal(size=(seeds, questions))
    )


def test_seeds_with_questions_of_their_own_have_students_interval():
    values = drawn()
    told, means = over([table(one) for one in values], alike=False), values.mean(axis=1)
    assert (told.low, told.high) == pytest.approx(stats.t.interval(0.95, 3, means.mean(), stats.sem(means)))


def test_variance_over_the_same_questions_is_that_of_two_way_random_effects():
    values = drawn()
    n_seeds, n_questions = values.shape
    rows, columns = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    rest = values - rows - columns + values.mean()
    of_seeds, of_questions = n_questions * rows.var(ddof=1), n_seeds * columns.var(ddof=1)
    of_rest = (rest**2).sum() / ((n_seeds - 1) * (n_questions - 1))
    expected = (of_seeds + of_questions - of_rest) / values.size
    assert over([table(one) for one in values]).standard_error ** 2 == pytest.approx(expected)


def test_wordings_of_a_fact_are_one_question_of_every_seed():
    values, about = drawn(), tuple(f"f{k}" for k in range(30) for _ in range(3))
    worded = [table(np.repeat(one, 3), about=about) for one in values]
    assert over(worded).standard_error == pytest.approx(over([table(one) for one in values]).standard_error)


def test_seeds_that_differ_alike_on_all_questions_are_students():
    values = np.array([[0.1], [0.2], [0.4]]) + np.zeros((3, 20))
    assert over([table(one) for one in values]).standard_error == pytest.approx(stats.sem([0.1, 0.2, 0.4]))


def test_models_of_the_same_clients_are_no_other_clients_with_each_seed():
    clients = np.random.default_rng(2).normal(size=(8, 1)) + np.zeros((8, 40))
    tables = [table(clients + 0.01 * seed) for seed in range(5)]
    assert over(tables).standard_error == pytest.approx(stats.sem(clients[:, 0]), rel=0.02)


def test_models_of_other_clients_are_told_apart_by_the_seeds():
    random = np.random.default_rng(3)
    tables = [table(random.normal(size=(8, 1)) + np.zeros((8, 40))) for _ in range(5)]
    told = over(tables, data=range(5))
    assert told.standard_error == pytest.approx(stats.sem([one.value for one in tables]))


def test_clients_own_questions_are_shared_by_seeds_of_the_same_data():
    clients = np.random.default_rng(4).normal(size=8)
    names = [f"c{c}" for c in range(8) for _ in range(5)]
    tables = [table(np.repeat(clients, 5) + 0.01 * seed, clients=names) for seed in range(5)]
    assert over(tables).standard_error == pytest.approx(stats.sem(clients), rel=0.01)


def test_mean_of_data_sets_has_the_variance_of_their_questions_over_the_square_of_their_number():
    values = np.random.default_rng(5).normal(size=(2, 25))
    data = [[Repetition(table(one), questions=0, data=0) for _ in range(3)] for one in values]
    expected = np.hypot(*(stats.sem(one) for one in values)) / 2
    assert mean_interval(data, resamples=50).standard_error == pytest.approx(expected)


def test_share_over_seeds_stays_within_0_and_1():
    tables = [table(np.array([1.0] * 58 + [0.0] * wrong + [1.0] * (2 - wrong))) for wrong in (0, 1, 2)]
    told = over(tables, alike=False)
    assert told.high < 1 < told.value + stats.t.ppf(0.975, 2) * told.standard_error


def test_seeds_that_are_always_right_have_an_interval_of_their_questions():
    told = over([table(np.ones(60))] * 3)
    assert told.high == 1.0 and 0.9 < told.low < 1


def test_p_is_small_where_the_interval_leaves_out_0():
    values = drawn() + 0.9
    seeds = [Repetition(table(one), table(np.zeros_like(one)), 0, 0) for one in values]
    p = repeated_p([seeds])
    assert (p < 0.05) == (mean_interval([seeds], resamples=50).low > 0)
    edge = mean_interval([seeds], resamples=50, level=1 - p)
    assert edge.low == pytest.approx(0, abs=1e-6)


def test_p_of_seeds_with_questions_of_their_own_is_that_of_the_t_test():
    values = np.random.default_rng(6).normal(0.3, 1, size=(5, 20))
    seeds = [Repetition(table(one), table(np.zeros_like(one)), seed, seed) for seed, one in enumerate(values)]
    assert repeated_p([seeds]) == pytest.approx(stats.ttest_1samp(values.mean(axis=1), 0).pvalue, rel=1e-5)


def test_half_widths_of_seeds_and_of_what_they_share_add_up_in_squares():
    values = drawn()
    told, n_seeds, n_questions = over([table(one) for one in values]), *values.shape
    of_seeds = stats.sem(values.mean(axis=1))
    shared = np.sqrt(told.standard_error**2 - of_seeds**2)
    expected = np.hypot(of_seeds * stats.t.ppf(0.975, n_seeds - 1), shared * stats.t.ppf(0.975, n_questions - 1))
    assert told.high - told.value == pytest.approx(expected)


def test_seed_without_a_question_is_refused():
    with pytest.raises(DataError, match="0 questions in one of the seeds"):
        over([table(np.ones(3)), ScoreTable(np.zeros((1, 3)), np.zeros((1, 3)), ("",) * 3)])
