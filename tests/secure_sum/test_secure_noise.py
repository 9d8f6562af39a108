"""Skellam noise: its law, its table, and what is left of it on the sum."""

from math import comb, exp, inf

import numpy as np
import pytest
from scipy.stats import skellam as reference

from fedloom.base.errors import ConfigError
from fedloom.secure_sum import skellam as noise
from fedloom.secure_sum.numbers import Numbers
from fedloom.secure_sum.skellam import Noise
from fedloom.secure_sum.terms import SecureSumError
from support.secure_sums import terms_of
from support.whole_sum import simulate


@pytest.mark.parametrize("variance", [0.01, 0.7, 5.0, 300.0, 4e4])
def test_probabilities_are_those_of_another_library(variance):
    chances = noise.probabilities(variance)
    found = [float(one) for one in chances[:1500]]
    assert found == pytest.approx(reference.pmf(np.arange(len(found)), variance / 2, variance / 2), rel=1e-9, abs=1e-16)
    assert float(chances[0] + 2 * sum(chances[1:])) == pytest.approx(1, abs=1e-40)


def test_probabilities_are_right_far_out_in_the_tail():
    """P[X = k] of variance v = 2 m by its series: the sum over j of e^-2m m^(k + 2 j) / (j! (k + j)!)."""
    variance, k = 2.0, 30
    chances = noise.probabilities(variance)
    first = exp(-variance)
    for factor in range(1, k + 1):
        first /= factor
    terms = [first]
    for j in range(1, 30):
        terms.append(terms[-1] / (j * (k + j)))
    assert float(chances[k]) == pytest.approx(sum(terms), rel=1e-12)
    assert float(chances[-1]) < 2.0**-130
    assert comb(2, 1) * float(sum(chances[k:])) < 1e-30


@pytest.mark.parametrize("variance", [0.3, 40.0, 1e6])
def test_drawn_numbers_have_the_law(variance):
    drawn = noise.skellam(variance, 200_000, noise.named_bits("law", 1))
    assert drawn.dtype == np.int64
    assert drawn.mean() == pytest.approx(0, abs=5 * (variance / 200_000) ** 0.5)
    assert drawn.var() == pytest.approx(variance, rel=0.02)
    wide = int(4 * variance**0.5)
    for low, high in ((-wide, -1), (0, 0), (1, wide), (-(wide // 2), wide // 2)):
        chance = reference.cdf(high, variance / 2, variance / 2) - reference.cdf(low - 1, variance / 2, variance / 2)
        share = float(((drawn >= low) & (drawn <= high)).mean())
        assert share == pytest.approx(chance, abs=5 * (chance * (1 - chance) / 200_000) ** 0.5 + 1e-6)


def test_numbers_by_name_are_the_same_again_and_the_systems_are_not():
    named = [noise.skellam(1e4, 64, noise.named_bits("a", 1)) for _ in range(2)]
    assert (named[0] == named[1]).all()
    assert (named[0] != noise.skellam(1e4, 64, noise.named_bits("a", 2))).any()
    assert (noise.skellam(1e4, 64) != noise.skellam(1e4, 64)).any()


def test_a_draw_on_the_edge_of_two_cells_is_settled_by_further_bits():
    high, low = vars(noise)["_edges"](3.0)
    place = len(high) // 2 + 1  # between 1 and 2
    edge, below = int(high[place]).to_bytes(8, "little"), int(low[place])
    for further, expected in ((below - 1, 1), (below, 2), (below + 1, 2)):
        bits = iter([edge, further.to_bytes(8, "little")])
        assert noise.skellam(3.0, 1, lambda _, bits=bits: next(bits)).tolist() == [expected]


@pytest.mark.parametrize(("bits", "expected"), [(bytes(8), 0), (b"\xff" * 8, 1)])
def test_the_outermost_draws_stay_inside_the_table(bits, expected):
    chances = noise.probabilities(3.0)
    (drawn,) = noise.skellam(3.0, 1, lambda n: bits[:n]).tolist()
    assert abs(drawn) < len(chances)
    assert (drawn > 0) == bool(expected)
    assert float(sum(chances[abs(drawn) :])) < 2.0**-60


def test_the_distance_bounds_tail_and_rounding():
    for variance in (0.01, 3.0, 1e5):
        cells = len(noise.probabilities(variance))
        assert cells * 2.0**-128 < noise.distance(variance) < cells * 2.0**-125


def noisy_rounds(lost_at, rounds=200, numbers=60, variance=900.0, least=4):
    """What is left on the sums of so many rounds once the exact sums are taken off."""
    terms = terms_of(5, size=numbers, threshold=3, min_clients=4)
    added = Noise(variance, least)
    values = Numbers(5, 20, 1.0, counted=False)
    rows = {name: values.encode(np.full(numbers, 0.25, dtype=np.float32)) for name in terms.clients}
    left = []
    for round in range(rounds):
        noisy = {name: row.copy() for name, row in rows.items()}
        for name, row in noisy.items():
            noise.add_noise(row, added, noise.named_bits("rounds", round, name))
        told = simulate(noisy, terms, lost_at=lost_at)
        exact = sum(rows[name] for name in told.survivors)
        left.append((told.sum_S - exact).view(np.int32))
    return np.array(left, dtype=np.float64), len(told.survivors)


@pytest.mark.parametrize("phase", [None, "mask"])
def test_the_unmasked_sum_of_200_rounds_has_the_variance_of_its_survivors(phase):
    left, survivors = noisy_rounds({"client-000": phase} if phase else {})
    target = 900.0 * Noise(900.0, 4).excess(survivors)
    assert survivors == (4 if phase else 5)
    assert target == (900.0 if phase else 1125.0)
    # 12,000 numbers: the variance of a sample has a deviation of 1.3 %
    assert left.var() == pytest.approx(target, rel=0.05)
    assert abs(left.mean()) < 5 * (target / left.size) ** 0.5


def test_with_more_lost_than_the_noise_is_made_for_nothing_is_opened():
    with pytest.raises(SecureSumError, match="at least 4"):
        noisy_rounds({"client-000": "mask", "client-001": "mask"}, rounds=1)


def test_each_client_adds_what_the_fewest_have_to_add():
    assert Noise(1000.0, 8).each == 125.0
    assert Noise(1000.0, 8).excess(10) == 1.25


@pytest.mark.parametrize(("variance", "least"), [(0.0, 3), (inf, 3), (float("nan"), 3), (1.0, 0), (2.0**36, 3)])
def test_noise_without_sense_is_refused(variance, least):
    with pytest.raises(ConfigError, match="lower the bits"):
        Noise(variance, least)
