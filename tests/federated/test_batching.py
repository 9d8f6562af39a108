"""Poisson draws: their sizes, their independence, and that micro-batches cover a draw exactly once."""

from collections import Counter
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedloom.base.errors import ConfigError
from fedloom.contracts.local_settings import LocalSettings
from fedloom.contracts.model import Shard
from fedloom.federated.batching import batches, drawable, mixed, poisson
from fedloom.federated.privacy.gaussian import Gaussian

N_EXAMPLES, RATE, N_DRAWS = 20, 0.3, 10_000
SETTINGS = LocalSettings(batch=4)
MECHANISM = Gaussian()


def drawn(*names, n_examples=N_EXAMPLES, rate=RATE, local=SETTINGS):
    return poisson(n_examples, rate, local, MECHANISM.source("sampling", *names))


@cache
def many_draws():
    return [[i for micro in drawn(0, 0, "anna", step) for i in micro] for step in range(N_DRAWS)]


def binned(probabilities):
    """Sizes 1 to 11 by themselves, those beyond together with them, so that every bin expects at least 20 draws."""
    return [sum(probabilities[:2]), *probabilities[2:11], sum(probabilities[11:])]


def expected(rate):
    return binned([stats.binom.pmf(size, N_EXAMPLES, rate) for size in range(N_EXAMPLES + 1)])


def chi_square():
    counts = Counter(len(draw) for draw in many_draws())
    found = binned([counts[size] for size in range(N_EXAMPLES + 1)])
    return sum((f - N_DRAWS * e) ** 2 / (N_DRAWS * e) for f, e in zip(found, expected(RATE), strict=True))


CRITICAL = stats.chi2.ppf(0.999, len(expected(RATE)) - 1)


def test_sizes_of_draws_are_binomial():
    assert chi_square() < CRITICAL


@pytest.mark.parametrize("wrong", [0.29, 0.31])
def test_the_test_of_sizes_would_find_a_rate_off_by_a_hundredth(wrong):
    """Power: the statistic is then chi-square with this noncentrality."""
    noncentrality = N_DRAWS * sum((w - e) ** 2 / e for w, e in zip(expected(wrong), expected(RATE), strict=True))
    assert stats.ncx2.sf(CRITICAL, len(expected(RATE)) - 1, noncentrality) > 0.99


def test_every_example_is_drawn_at_the_rate():
    counts = Counter(i for draw in many_draws() for i in draw)
    # Five standard deviations, sqrt(n p (1 - p)) = 45.8, for each of twenty examples.
    assert all(abs(counts[i] - N_DRAWS * RATE) < 5 * 45.8 for i in range(N_EXAMPLES))


def test_two_examples_are_drawn_independently():
    both = sum(0 in draw and 1 in draw for draw in many_draws())
    assert abs(both - N_DRAWS * RATE**2) < 5 * (N_DRAWS * RATE**2 * (1 - RATE**2)) ** 0.5


def test_successive_draws_are_independent():
    sizes = torch.tensor([float(len(draw)) for draw in many_draws()])
    correlation = torch.corrcoef(torch.stack((sizes[:-1], sizes[1:])))[0, 1]
    assert abs(float(correlation)) < 5 / N_DRAWS**0.5


@pytest.mark.parametrize("names", [(0, 0, "anna", 1), (0, 1, "anna", 0), (0, 0, "bert", 0), (1, 0, "anna", 0)])
def test_draws_differ_by_step_round_client_and_seed(names):
    assert drawn(*names, n_examples=200) != drawn(0, 0, "anna", 0, n_examples=200)


def test_a_draw_repeats_with_its_names():
    assert drawn(0, 0, "anna", 0) == drawn(0, 0, "anna", 0)


def test_rate_one_takes_all():
    assert sorted(i for micro in drawn(0, rate=1.0) for i in micro) == list(range(N_EXAMPLES))


def test_rate_one_needs_no_noise():
    def refused(count):
        raise AssertionError(f"{count} numbers drawn")

    assert poisson(3, 1.0, SETTINGS, refused) == [[0, 1, 2]]


def test_an_empty_draw_has_no_micro_batch():
    assert drawn(0, rate=1e-9) == []


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(n=st.integers(1, 200), rate=st.floats(0.01, 1.0), batch=st.integers(1, 20), seed=st.integers(0, 9))
def test_micro_batches_cover_a_draw_exactly_once(n, rate, batch, seed):
    found = drawn(seed, n_examples=n, rate=rate, local=LocalSettings(batch=batch))
    whole = drawn(seed, n_examples=n, rate=rate, local=LocalSettings(batch=1000))
    assert [i for micro in found for i in micro] == [i for micro in whole for i in micro]


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(n=st.integers(1, 200), rate=st.floats(0.01, 1.0), batch=st.integers(1, 20), seed=st.integers(0, 9))
def test_micro_batches_are_no_larger_than_half_again_the_batch(n, rate, batch, seed):
    found = drawn(seed, n_examples=n, rate=rate, local=LocalSettings(batch=batch))
    assert all(0 < len(micro) <= 1.5 * batch + 1 for micro in found)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_shuffled_step_has_as_many_micro_batches_as_it_accumulates(accumulation):
    local = LocalSettings(steps=2, batch=3, accumulation=accumulation)
    assert [[len(micro) for micro in step] for step in batches(7, local, 0)] == [[3] * accumulation] * 2


# ------------------------------------------------------------------------------------------------- generated examples


def shard_of(n_own, n_made):
    return Shard(tuple(range(n_own + n_made)), generated=frozenset(range(n_own, n_own + n_made)))


@pytest.mark.parametrize(
    ("share", "wanted"),
    [(None, ([0, 1], [2, 3, 4])), (0.0, ([0, 1], [])), (1.0, ([], [2, 3, 4])), (0.3, ([0, 1], [2, 3, 4]))],
)
def test_a_share_says_which_kinds_can_be_drawn(share, wanted):
    assert tuple(map(list, drawable(shard_of(2, 3), share))) == wanted


@pytest.mark.parametrize(("sizes", "share"), [((3, 0), 1.0), ((0, 3), 0.0)])
def test_who_has_one_kind_alone_draws_from_it_whatever_the_share(sizes, share):
    own, made = drawable(shard_of(*sizes), share)
    assert len(own) + len(made) == 3


def test_elements_are_generated_as_often_as_asked_and_each_kind_comes_in_whole_shuffles():
    settings = LocalSettings(steps=400, batch=10)
    drawn = [at for step in mixed([0, 1, 2], [3, 4], 0.25, settings, "seed") for micro in step for at in micro]
    own, made = ([at for at in drawn if (at > 2) == kind] for kind in (False, True))
    assert len(made) / len(drawn) == pytest.approx(0.25, abs=0.03)
    for kind, size in ((own, 3), (made, 2)):
        whole = [sorted(kind[start : start + size]) for start in range(0, len(kind) - size + 1, size)]
        assert len({tuple(one) for one in whole}) == 1


@pytest.mark.parametrize(
    ("settings", "rounds", "shares"),
    [
        (LocalSettings(), 2, [None, None]),
        (LocalSettings(p_generated=0.5), 2, [0.5, 0.5]),
        (LocalSettings(pretrain=1), 3, [1.0, 0.0, 0.0]),
        (LocalSettings(pretrain=1, p_generated=0.2), 2, [1.0, 0.2]),
    ],
)
def test_the_share_goes_by_the_round(settings, rounds, shares):
    assert [settings.share_generated(round) for round in range(rounds)] == shares


@pytest.mark.parametrize("changes", [{"epochs": 1.0}, {"pretrain": 1}, {"p_generated": 1.0}])
def test_matched_exposure_with_what_it_cannot_match_is_refused(changes):
    with pytest.raises(ConfigError, match="match_exposure"):
        LocalSettings(match_exposure=True, **changes)
