"""Audits: brute force, published values, simulated runs of known epsilon, closed forms."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from fedloom.base import rng
from fedloom.base.errors import DataError
from fedloom.runs.audit_bounds import (
    Estimate,
    exposure,
    guess_counts,
    loss_scores,
    membership,
    one_run_bound,
    one_run_p_value,
    reference_scores,
)

# ----------------------------------------------------------------------------------------------------------- exposure


def test_canary_less_likely_than_no_reference_has_the_most_exposure():
    assert exposure(np.array([1.0]), np.arange(2.0, 1025.0)).tolist() == [10.0]


def test_canary_behind_all_references_has_no_exposure():
    assert exposure(np.array([5.0]), np.arange(4.0)).tolist() == [0.0]


def test_reference_as_likely_as_the_canary_ranks_before_it():
    assert exposure(np.array([2.0]), np.array([1.0, 2.0, 3.0])).tolist() == [math.log2(4) - math.log2(3)]


def test_exposure_is_that_of_counting():
    random = rng.numpy_random("exposure")
    canaries, references = random.normal(size=20), random.normal(size=99)
    by_hand = [math.log2(100 / (1 + sum(r <= c for r in references))) for c in canaries]
    assert exposure(canaries, references) == pytest.approx(by_hand)


def test_canary_that_was_not_memorised_has_1_44_bits_on_average():
    random = rng.numpy_random("chance")
    losses = exposure(random.normal(size=20_000), random.normal(size=20_000))
    assert float(losses.mean()) == pytest.approx(math.log2(math.e), abs=0.05)


# ------------------------------------------------------------------------------------------------- audit from one run


def brute_force_p_value(n_canaries, guesses, correct, right, delta):
    """Corollary 5.4 in exact fractions, `right` being the accuracy of randomised response."""
    mass = [math.comb(guesses, k) * right**k * (1 - right) ** (guesses - k) for k in range(guesses + 1)]
    steepest = max((sum(mass[correct - i : correct]) / i for i in range(1, correct + 1)), default=0)
    return min(Fraction(1), sum(mass[correct:]) + 2 * n_canaries * delta * steepest)


@pytest.mark.parametrize("guesses", [1, 2, 7, 12])
def test_p_value_is_that_of_exact_fractions(guesses):
    for correct, delta in itertools.product(range(guesses + 1), [Fraction(0), Fraction(1, 1000)]):
        expected = brute_force_p_value(20, guesses, correct, Fraction(3, 4), delta)
        found = one_run_p_value(20, guesses, correct, epsilon=math.log(3), delta=float(delta))
        assert found == pytest.approx(float(expected), rel=1e-12)


def all_guessed(n_canaries, guesses, correct):
    """Scores and coins for which the highest `guesses` scores, guessed to be included, hold `correct` that are."""
    scores = np.arange(n_canaries, dtype=np.float64)
    included = np.zeros(n_canaries, dtype=np.bool_)
    included[n_canaries - guesses : n_canaries - guesses + correct] = True
    return scores, included


@pytest.mark.parametrize(
    ("n_canaries", "guesses", "correct", "delta", "published"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],  # appendix D; section 7, figure 11
)
def test_bound_is_the_published_one(n_canaries, guesses, correct, delta, published):
    scores, included = all_guessed(n_canaries, guesses, correct)
    bound = one_run_bound(scores, included, delta=delta, guesses=[(guesses, 0)])
    assert bound.epsilon == pytest.approx(published, abs=1.1e-3)


@pytest.mark.parametrize("guesses", [10, 100, 1000])
def test_perfect_guesses_give_the_closed_form(guesses):
    # All r are correct with probability q^r, which is 5 % where epsilon = log(q / (1 - q)).
    scores, included = all_guessed(guesses, guesses, guesses)
    right = 0.05 ** (1 / guesses)
    bound = one_run_bound(scores, included, delta=0.0, guesses=[(guesses, 0)])
    assert bound.epsilon == pytest.approx(math.log(right / (1 - right)), abs=1.1e-3)


def test_bound_is_approached_from_below():
    scores, included = all_guessed(100, 100, 90)
    bound = one_run_bound(scores, included, delta=1e-3, guesses=[(100, 0)])
    p_values = [one_run_p_value(100, 100, 90, epsilon=e, delta=1e-3) for e in np.linspace(0, bound.epsilon, 200)]
    assert max(p_values) <= 0.05


def test_chance_gives_no_bound():
    scores, included = all_guessed(100, 100, 50)
    assert one_run_bound(scores, included, delta=0.0, guesses=[(100, 0)]).epsilon == 0


def test_delta_lowers_the_bound():
    scores, included = all_guessed(100, 100, 90)
    bounds = [one_run_bound(scores, included, delta=d, guesses=[(100, 0)]).epsilon for d in (0.0, 1e-4, 1e-3, 1e-2)]
    assert bounds == sorted(bounds, reverse=True) and len(set(bounds)) == 4


def test_correct_guesses_of_both_kinds_count():
    scores = np.array([9.0, 1.0, 8.0, 2.0, 5.0, 5.0])
    included = np.array([True, False, False, True, True, False])
    bound = one_run_bound(scores, included, delta=0.0, guesses=[(2, 2)])
    assert (bound.guesses, bound.correct, bound.canaries) == (4, 2, 6)


def test_several_guesses_are_tested_at_a_part_of_the_level():
    scores, included = all_guessed(100, 100, 90)
    several = one_run_bound(scores, included, delta=0.0, guesses=[(100, 0)] * 4).epsilon
    assert several == one_run_bound(scores, included, delta=0.0, guesses=[(100, 0)], confidence=1 - 0.05 / 4).epsilon


def test_best_of_several_guesses_counts():
    scores, included = all_guessed(100, 10, 10)
    bound = one_run_bound(scores, included, delta=0.0, guesses=[(50, 0), (10, 0), (20, 0)])
    assert (bound.guesses, bound.correct) == (10, 10)


@pytest.mark.parametrize(("n_canaries", "expected"), [(100, [(6, 6), (12, 12), (25, 25), (50, 50)]), (3, [(1, 1)])])
def test_guesses_to_try_are_shares_of_the_canaries(n_canaries, expected):
    assert guess_counts(n_canaries) == expected


def randomised_response(random, n_canaries, epsilon, leak=0.0):
    """Coins, and their randomised responses as scores; with probability `leak` all coins are published instead."""
    included = random.random(n_canaries) < 0.5
    honest = random.random(n_canaries) < (1 if random.random() < leak else 1 / (1 + math.exp(-epsilon)))
    return (included == honest).astype(np.float64), included


def bounds_of(epsilon, guesses, *, n_canaries, leak=0.0, audits=500):
    random = rng.numpy_random("audits", n_canaries, int(1000 * leak))
    runs = (randomised_response(random, n_canaries, epsilon, leak) for _ in range(audits))
    return np.array([one_run_bound(*run, delta=leak, guesses=guesses).epsilon for run in runs])


def test_bound_holds_in_95_of_100_audits_of_randomised_response():
    assert (bounds_of(1.0, [(100, 100)], n_canaries=500) <= 1.0).mean() >= 0.94  # 500 audits: 1 % standard error


def test_bound_over_several_guesses_holds_in_95_of_100_audits():
    assert (bounds_of(1.0, guess_counts(400), n_canaries=400) <= 1.0).mean() >= 0.94


def test_bound_holds_for_a_mechanism_that_sometimes_leaks_all():
    assert (bounds_of(1.0, [(40, 40)], n_canaries=200, leak=0.002) <= 1.0).mean() >= 0.94


def test_bound_is_near_the_epsilon_of_randomised_response():
    assert np.median(bounds_of(2.0, [(800, 800)], n_canaries=4000, audits=60)) > 1.8


# ----------------------------------------------------------------------------------------------- membership inference


def scores_of(shift, n_members=300, n_others=400, seed=0):
    random = rng.numpy_random("scores", seed)
    return random.normal(shift, 1, n_members), random.normal(0, 1, n_others)


def test_auc_is_the_share_of_pairs_in_order():
    members, others = np.array([0.3, 0.7, 0.7, 2.0]), np.array([0.1, 0.7, 1.0])
    pairs = [(m > o) + (m == o) / 2 for m in members for o in others]
    assert membership(members, others).auc.value == pytest.approx(sum(pairs) / 12)


def test_true_positive_rate_is_that_of_the_best_threshold():
    members, others = scores_of(1.0)
    thresholds = [t for t in np.concatenate([members, others]) if (others >= t).mean() <= 0.05]
    best = max((members >= t).mean() for t in thresholds)
    assert membership(members, others, false_positive_rate=0.05).true_positive_rate.value == pytest.approx(best)


def test_fewer_others_than_one_false_positive_allow_none():
    found = membership(np.array([1.0, 3.0]), np.array([0.0, 2.0]))
    assert found.true_positive_rate.value == 0.5


def test_equal_scores_tell_nothing():
    found = membership(np.ones(20), np.ones(30))
    assert (found.auc.value, found.true_positive_rate.value) == (0.5, 0.0)


def test_separate_scores_tell_everything():
    found = membership(np.arange(10.0, 20.0), np.arange(5.0))
    assert (found.auc, found.true_positive_rate) == (Estimate(1.0, 1.0, 1.0), Estimate(1.0, 1.0, 1.0))


def test_auc_of_shifted_normals_is_the_closed_form():
    # P[member > other] of two normals one apart is Phi(1 / sqrt 2) = 0.7602.
    members, others = scores_of(1.0, 20_000, 20_000)
    assert membership(members, others, resamples=2).auc.value == pytest.approx(0.7602, abs=0.007)


def test_interval_of_auc_covers_it_in_95_of_100_samples():
    found = [membership(*scores_of(1.0, 60, 60, seed), resamples=200).auc for seed in range(300)]
    assert np.mean([one.low <= 0.7602 <= one.high for one in found]) == pytest.approx(0.95, abs=0.04)


def test_resampling_does_not_depend_on_the_size_of_its_blocks(monkeypatch):
    whole = membership(*scores_of(1.0), resamples=40)
    monkeypatch.setattr("fedloom.runs.audit_bounds._BLOCK", 700 * 40)
    assert membership(*scores_of(1.0), resamples=40) == whole


def test_same_seed_gives_the_same_intervals():
    assert membership(*scores_of(1.0), seed=3) == membership(*scores_of(1.0), seed=3)


def test_lower_loss_is_a_higher_score():
    assert loss_scores(np.array([0.5, 2.0])).tolist() == [-0.5, -2.0]


def test_reference_score_is_the_loss_saved():
    assert reference_scores(np.array([0.5, 2.0]), np.array([1.5, 1.0])).tolist() == [1.0, -1.0]


# ------------------------------------------------------------------------------------------------------------- misuse


@pytest.mark.parametrize("bad", [np.array([]), np.ones((2, 2))])
def test_scores_of_another_shape_are_refused(bad):
    with pytest.raises(
        DataError, match=r"^members of an audit have shape .*: allowed is one row of at least one number"
    ):
        membership(bad, np.ones(3))


def test_score_that_is_no_number_is_refused():
    with pytest.raises(DataError, match=r"^references of an audit hold NaN: give a number for each\.$"):
        exposure(np.ones(2), np.array([1.0, math.nan]))


def test_scores_without_coins_are_refused():
    with pytest.raises(DataError, match=r"^3 scores come with 2 coins of canaries: give one each\.$"):
        one_run_bound(np.ones(3), np.ones(2, dtype=np.bool_), delta=0.0, guesses=[(1, 1)])


@pytest.mark.parametrize("pair", [(0, 0), (3, 2), (-1, 2)])
def test_impossible_number_of_guesses_is_refused(pair):
    with pytest.raises(DataError, match=r" guesses about 4 canaries: allowed are 1 to 4 in all;"):
        one_run_bound(np.arange(4.0), np.ones(4, dtype=np.bool_), delta=0.0, guesses=[pair])


@pytest.mark.parametrize(
    "wrong", [{"guesses": []}, {"delta": 1.0}, {"delta": -0.1}, {"confidence": 1.0}, {"confidence": 0.0}]
)
def test_impossible_level_is_refused(wrong):
    settings = {"delta": 0.0, "guesses": [(1, 1)], "confidence": 0.95} | wrong
    with pytest.raises(DataError, match=r"^an audit with .* pairs of guesses, delta .* and confidence"):
        one_run_bound(np.arange(4.0), np.ones(4, dtype=np.bool_), **settings)


def test_losses_of_two_lengths_are_refused():
    with pytest.raises(DataError, match=r"^3 losses come with 2 of the reference: give one each\.$"):
        reference_scores(np.ones(3), np.ones(2))
