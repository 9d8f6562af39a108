"""Intervals cover what they should, and pairs are tighter than their parts."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedloom.base.errors import DataError
from fedloom.evaluation.intervals import bounded_difference, bounded_share, satterthwaite, student_quantile
from fedloom.evaluation.repetitions import student_interval
from fedloom.evaluation.statistics import (
    ScoreTable,
    bootstrap,
    drawn_interval,
    holm,
    resampled,
    sign_flip,
)


def table(total, weight=None, clients=None):
    total = np.atleast_2d(np.asarray(total, dtype=float))
    weight = np.ones_like(total) if weight is None else np.atleast_2d(np.asarray(weight, dtype=float))
    return ScoreTable(total, weight, tuple(clients or [""] * total.shape[1]))


def client_answers(random, clients=20, questions=20):
    """Answers [clients * questions] of which each client gets a share right of its own; all together: one half."""
    share = random.uniform(0.1, 0.9, size=(clients, 1))
    return (random.random((clients, questions)) < share).astype(float).ravel()


NAMES = [f"c{client}" for client in range(20) for _ in range(20)]


def test_bootstrap_covers_the_true_mean_about_95_times_in_100():
    random = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        interval = bootstrap(table(random.random(80) < 0.3), resamples=300, seed=seed)
        hits += interval.low <= 0.3 <= interval.high
    assert 176 <= hits <= 199  # binomial(200, 0.94) within four standard deviations, and not always


def test_interval_over_clients_and_their_questions_covers_the_population():
    random = np.random.default_rng(2)
    intervals = [
        bootstrap(table(client_answers(random), clients=NAMES), resamples=200, seed=seed) for seed in range(100)
    ]
    assert 85 <= sum(interval.low <= 0.5 <= interval.high for interval in intervals) <= 100


def test_interval_over_questions_alone_would_miss_the_population():
    random = np.random.default_rng(2)
    intervals = [bootstrap(table(client_answers(random)), resamples=200, seed=seed) for seed in range(100)]
    assert sum(interval.low <= 0.5 <= interval.high for interval in intervals) < 80


def test_two_stage_width_is_that_of_drawing_clients_then_questions_one_by_one():
    answers = client_answers(np.random.default_rng(3))
    random, means = np.random.default_rng(4), []
    for _ in range(2000):
        drawn = [random.choice(answers.reshape(20, 20)[client], 20) for client in random.integers(20, size=20)]
        means.append(np.mean(drawn))
    interval = bootstrap(table(answers, clients=NAMES), resamples=2000)
    assert (interval.low, interval.high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.015)


def test_questions_of_one_client_are_drawn_one_by_one():
    answers = np.random.default_rng(5).random(40)
    assert bootstrap(table(answers, clients=["a"] * 40), resamples=100) == bootstrap(table(answers), resamples=100)


def test_rows_of_clients_widen_the_interval():
    random = np.random.default_rng(1)
    total = (random.random((10, 50)) < random.random((10, 1))).astype(float)
    rows, flat = bootstrap(table(total), resamples=500), bootstrap(table(total.ravel()), resamples=500)
    assert rows.high - rows.low > 1.5 * (flat.high - flat.low)


def test_rows_that_share_no_question_count_as_one_model_of_many_clients():
    answers = client_answers(np.random.default_rng(6))
    asked = np.repeat(np.eye(20), 20, axis=1)
    sparse = bootstrap(table(asked * answers, asked, NAMES), resamples=100)
    assert sparse == bootstrap(table(answers, clients=NAMES), resamples=100)


def test_weights_make_a_ratio_of_sums():
    assert bootstrap(table([1.0, 9.0], [1.0, 3.0]), resamples=50).value == 2.5


def test_difference_of_unequal_weights_is_the_difference_of_the_means():
    difference = bootstrap(table([2.0, 6.0], [1.0, 3.0]), table([4.0, 4.0], [2.0, 6.0]), resamples=50)
    assert difference.value == 2.0 - 1.0


def test_difference_of_one_model_and_many_is_the_difference_of_the_means():
    random = np.random.default_rng(7)
    one, many = table(random.random(30)), table(random.random((4, 30)), random.integers(1, 9, (4, 30)))
    difference = bootstrap(one, many, resamples=50)
    assert difference.value == pytest.approx(one.value - many.value)


def test_models_that_answer_alike_have_no_difference_whatever_the_weights():
    weight = np.random.default_rng(8).integers(1, 9, 30)
    difference = bootstrap(table(2.0 * weight, weight), table([2.0] * 30), resamples=50)
    assert (difference.low, difference.high) == pytest.approx((0, 0), abs=1e-12)


def test_paired_difference_is_tighter_than_its_parts():
    random = np.random.default_rng(9)
    hard = random.random(60)
    one, other = table(hard + 0.01 * random.random(60)), table(hard + 0.01 * random.random(60))
    pair, part = bootstrap(one, other, resamples=200), bootstrap(one, resamples=200)
    assert pair.high - pair.low < 0.1 * (part.high - part.low)


def test_tables_of_other_clients_questions_are_not_paired():
    with pytest.raises(DataError, match="cannot be paired"):
        bootstrap(table(np.ones(2), clients="ab"), table(np.ones(2), clients="ac"), resamples=10)


def owned(total, owners):
    return ScoreTable(total, np.ones_like(total), ("",) * total.shape[1], tuple(owners))


def test_models_of_the_same_owners_are_drawn_together():
    total = np.random.default_rng(20).random((5, 1)) + np.zeros((5, 9))
    difference = bootstrap(owned(total, "abcde"), owned(total + 1, "abcde"), resamples=100)
    assert (difference.low, difference.high) == pytest.approx((-1, -1))


def test_models_of_other_owners_are_drawn_by_themselves():
    random = np.random.default_rng(21)
    one, other = random.random((5, 1)) + np.zeros((5, 9)), random.random((8, 1)) + np.zeros((8, 9))
    alone = [bootstrap(table(part), resamples=2000).standard_error for part in (one, other)]
    apart = bootstrap(owned(one, "abcde"), owned(other, "fghijklm"), resamples=2000).standard_error
    assert apart == pytest.approx(np.hypot(*alone), rel=0.1)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 10, 29, 100])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_student_quantile_is_that_of_scipy(level, freedom):
    assert student_quantile(level, freedom) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-9)


def test_standard_error_of_seeds_is_that_of_scipy():
    values = [0.2, 0.5, 0.9]
    assert student_interval(values).standard_error == pytest.approx(stats.sem(values))


def test_standard_error_of_a_bootstrap_is_that_of_a_mean():
    answers = np.random.default_rng(22).random(100)
    assert bootstrap(table(answers), resamples=4000).standard_error == pytest.approx(stats.sem(answers), rel=0.05)


def test_interval_of_a_higher_level_is_wider():
    answers = np.random.default_rng(23).random((2, 60))
    tables = table(answers[0]), table(answers[1])
    wide, narrow = (bootstrap(*tables, resamples=2000, level=level) for level in (0.99, 0.8))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_sign_flip_over_few_questions_is_the_exact_test_of_scipy():
    one, other = np.random.default_rng(24).random((2, 8))
    exact = stats.permutation_test(
        (one, other), lambda a, b: a.mean() - b.mean(), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip([(table(one), table(other))]) == pytest.approx(exact.pvalue)


def test_swaps_that_leave_a_model_without_weight_do_not_lower_p():
    # Each has weight on one question only: of the four swaps, two leave one model nothing.
    assert sign_flip([(table([1, 0], [1, 0]), table([0, 0], [0, 1]))]) == 1.0


def test_sign_flip_over_many_questions_is_near_the_t_test():
    one, other = np.random.default_rng(25).normal(0.1, 1, 200), np.random.default_rng(26).normal(0, 1, 200)
    assert sign_flip([(table(one), table(other))]) == pytest.approx(stats.ttest_rel(one, other).pvalue, abs=0.02)


def test_sign_flip_rejects_as_often_as_it_says():
    random = np.random.default_rng(27)
    found = [sign_flip([(table(random.random(20)), table(random.random(20)))], resamples=199) for _ in range(300)]
    assert 3 <= sum(p <= 0.05 for p in found) <= 29  # binomial(300, 0.05) within four standard deviations


def test_sign_flip_of_equal_answers_is_one():
    assert sign_flip([(table([1.0, 0.0, 1.0]), table([1.0, 0.0, 1.0]))]) == 1.0


def test_sign_flip_swaps_the_questions_of_a_client_together():
    one = table(np.ones(40), clients=["a"] * 20 + ["b"] * 20)
    assert sign_flip([(one, table(np.zeros(40), clients=one.client_N))]) == 0.5


def test_sign_flip_takes_the_mean_of_many_models_as_one():
    one, other = np.random.default_rng(28).random((2, 8))
    many = table(np.stack([other - 0.1, other + 0.1]))
    assert sign_flip([(table(one), many)]) == sign_flip([(table(one), table(other))])


def test_sign_flip_over_two_seeds_joins_their_questions():
    random = np.random.default_rng(29)
    one, other = random.random((2, 10))
    parts = [(table(one[:5]), table(other[:5])), (table(one[5:]), table(other[5:]))]
    assert sign_flip(parts) == pytest.approx(sign_flip([(table(one), table(other))]))


def test_holm_is_that_of_its_paper():
    # Holm's steps by hand: 4 * 0.005, 3 * 0.011, then max(0.033, 2 * 0.02), then max(0.04, 1 * 0.04)
    assert holm([0.02, 0.005, 0.04, 0.011]) == pytest.approx([0.04, 0.02, 0.04, 0.033])


def test_resampled_means_of_one_draw_are_the_same_questions_for_all():
    one = np.random.default_rng(30).random(12)
    values = resampled([table(one), table(2 * one)], resamples=50)
    assert values[:, 1] == pytest.approx(2 * values[:, 0])


def test_2000_resamples_of_20_models_on_180_questions_take_a_moment():
    total = np.random.default_rng(10).random((20, 180))
    started = time.process_time()
    bootstrap(table(total), resamples=2000)
    assert time.process_time() - started < 0.2


def test_blocks_of_resamples_keep_their_number(monkeypatch):
    monkeypatch.setattr("fedloom.evaluation.statistics._DRAWS", 100)
    answers = np.random.default_rng(11).random(30)
    small = bootstrap(table(answers), resamples=1000)
    assert (small.low, small.high) == pytest.approx(np.percentile(_means(answers), [2.5, 97.5]), abs=0.02)


def _means(answers):
    random = np.random.default_rng(12)
    return [random.choice(answers, len(answers)).mean() for _ in range(2000)]


def test_resamples_without_weight_leave_a_value_without_interval():
    interval = bootstrap(table([1.0, *[0.0] * 50], [1.0, *[0.0] * 50]), resamples=1, seed=1)
    assert interval.value == 1.0 and np.isnan(interval.low)


def test_no_question_is_refused():
    with pytest.raises(DataError, match="0 questions"):
        bootstrap(table(np.zeros((1, 0))), resamples=10)


@pytest.mark.parametrize("n", [2, 5, 30])
def test_student_interval_equals_scipy(n):
    values = np.random.default_rng(n).normal(size=n)
    ours = student_interval(list(values))
    low, high = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-3)


def test_one_repetition_has_no_interval():
    with pytest.raises(DataError, match="at least two seeds"):
        student_interval([1.0])


# ------------------------------------------------------------------------------------------- questions about one thing


def repeated(values, times=3):
    """A table of facts asked in several wordings, all answered alike."""
    facts = tuple(f"fact {k}" for k in range(len(values)) for _ in range(times))
    return replace(table(np.repeat(values, times)), cluster_N=facts)


def test_wordings_of_a_fact_are_drawn_as_one():
    answers = np.random.default_rng(40).random(30)
    alone, worded = bootstrap(table(answers), resamples=200), bootstrap(repeated(answers), resamples=200)
    assert (worded.low, worded.high) == pytest.approx((alone.low, alone.high))


def test_wordings_that_agree_count_as_one_question():
    told = bootstrap(repeated(np.random.default_rng(41).random(30)), resamples=4000)
    assert told.n == 90 and told.effective_n == pytest.approx(30, rel=0.1)


def test_questions_by_themselves_count_fully():
    assert bootstrap(table(np.random.default_rng(42).random(90)), resamples=4000).effective_n == pytest.approx(
        90, rel=0.1
    )


def test_answers_that_are_all_alike_count_as_their_facts():
    assert bootstrap(repeated(np.ones(30)), resamples=50).effective_n == 30


def test_wordings_of_a_fact_are_swapped_together():
    one, other = np.random.default_rng(43).random((2, 8))
    assert sign_flip([(repeated(one), repeated(other))]) == pytest.approx(sign_flip([(table(one), table(other))]))


def test_facts_that_all_clients_know_are_drawn_across_them():
    facts = np.random.default_rng(44).random(6)
    clients, about = [f"c{c}" for c in range(20) for _ in facts], tuple(f"f{k}" for k in range(6)) * 20
    told = bootstrap(replace(table(np.tile(facts, 20), clients=clients), cluster_N=about), resamples=4000)
    assert told.standard_error == pytest.approx(np.std(facts) / np.sqrt(6), rel=0.1)


def test_questions_about_one_thing_within_a_client_are_drawn_together():
    answers, names = (
        client_answers(np.random.default_rng(45), questions=4),
        [f"c{c}" for c in range(20) for _ in range(4)],
    )
    alone = bootstrap(table(answers + 0.5, clients=names), resamples=300)
    about = tuple(f"{name} {q}" for name in dict.fromkeys(names) for q in range(4) for _ in range(3))
    asked = table(np.repeat(answers + 0.5, 3), clients=np.repeat(names, 3).tolist())
    worded = bootstrap(replace(asked, cluster_N=about), resamples=300)
    assert (worded.low, worded.high) == pytest.approx((alone.low, alone.high))


# ----------------------------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize(("right", "n"), [(1, 10), (95, 100), (100, 100), (0, 7)])
def test_interval_of_a_share_is_wilsons_of_scipy(right, n):
    share = right / n
    expected = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert bounded_share(share, share * (1 - share) / n, n, stats.norm.ppf(0.975)) == pytest.approx(
        tuple(expected), abs=1e-9
    )


def test_share_of_1_has_an_interval_of_its_facts():
    told = bootstrap(repeated(np.ones(40)), resamples=50)
    t = stats.t.ppf(0.975, 39)
    assert (told.low, told.high) == pytest.approx((40 / (40 + t * t), 1.0))


def test_difference_of_independent_values_adds_their_sides_in_squares():
    low, high = bounded_difference((0.9, 0.5), ((0.8, 0.95), (0.4, 0.7)), 0.0)
    assert (low, high) == pytest.approx((0.4 - np.hypot(0.1, 0.2), 0.4 + np.hypot(0.05, 0.1)))


def test_difference_of_values_that_move_together_has_the_difference_of_their_sides():
    low, high = bounded_difference((0.9, 0.5), ((0.8, 0.95), (0.4, 0.7)), 1.0)
    assert (low, high) == pytest.approx((0.4 - 0.1, 0.4 + 0.05))


def test_two_models_that_are_always_right_may_differ():
    told = bootstrap(repeated(np.ones(40)), repeated(np.ones(40)), resamples=50)
    assert told.value == 0 and told.low < -0.05 and told.high > 0.05


def test_interval_of_few_units_is_as_wide_as_students():
    draws = np.random.default_rng(46).normal(size=400_000)
    told = drawn_interval(0.0, draws, 9)
    assert told.high == pytest.approx(stats.t.ppf(0.975, 8) * np.sqrt(9 / 8), rel=0.02)


def test_degrees_of_freedom_of_equal_variances_add_up():
    assert satterthwaite([(0.5, 4), (0.5, 4)]) == 8


@pytest.mark.parametrize("n_units", range(2, 60))
def test_no_interval_of_a_share_leaves_0_to_1(n_units):
    t = student_quantile(0.95, n_units - 1)
    low, high = bounded_share(0.0, 0.0, n_units, t)
    assert (low, math.copysign(1.0, low)) == (0.0, 1.0) and 0 < high < 1
    low, high = bounded_share(1.0, 0.0, n_units, t)
    assert 0 < low < 1 and high == 1.0
