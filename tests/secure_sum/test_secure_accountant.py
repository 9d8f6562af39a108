"""The accountant of Skellam noise: against exact divergences, the Gaussian limit and another library."""

import math
from dataclasses import replace

import dp_accounting
import numpy as np
import pytest

from fedloom.base.errors import ConfigError
from fedloom.secure_sum import accountant
from fedloom.secure_sum.numbers import Numbers
from fedloom.secure_sum.skellam import probabilities


def laws(variance, shift):
    """Logarithms of the probabilities of a Skellam number and of one that is shifted, on common ground."""
    half = [float(one.ln()) for one in probabilities(variance)]
    line = np.array(half[:0:-1] + half)
    return line[shift:], line[: len(line) - shift]


def exact_rdp(order, variance, shift):
    here, there = laws(variance, shift)
    return np.logaddexp.reduce(order * here + (1 - order) * there) / (order - 1)


@pytest.mark.parametrize("variance", [1.0, 4.0, 30.0, 1000.0])
@pytest.mark.parametrize("shift", [1, 2, 7])
@pytest.mark.parametrize("order", [2, 3, 8, 20])
def test_the_bound_is_above_the_exact_divergence_and_near_it_for_much_noise(variance, shift, order):
    exact = exact_rdp(order, variance, shift)
    bound = accountant.rdp(order, reach=shift, absolute=shift, variance=variance)
    assert exact <= bound
    if variance == 1000.0:
        assert bound <= 1.02 * exact


def test_the_bound_is_the_published_one():
    """Corollary 4.1 by hand, once with each side of its minimum."""
    assert accountant.rdp(2, reach=3.0, absolute=5.0, variance=100.0) == pytest.approx(
        2 * 9 / 200 + (3 * 9 + 6 * 5) / 40_000
    )
    assert accountant.rdp(2, reach=3.0, absolute=5.0, variance=0.5) == pytest.approx(2 * 9 / 1 + 3 * 5 / 1)


@pytest.mark.parametrize("order", [2, 5, 31])
def test_much_noise_costs_what_gaussian_noise_does(order):
    for reach, variance in ((10.0, 1e8), (1e5, 1e11)):
        absolute = accountant.absolute_reach(reach, 1_000_000)
        found = accountant.rdp(order, reach=reach, absolute=absolute, variance=variance)
        assert found == pytest.approx(order * reach**2 / (2 * variance), rel=1e-2)
    small = accountant.rdp(order, reach=10.0, absolute=100.0, variance=1e3)
    smaller = accountant.rdp(order, reach=10.0, absolute=100.0, variance=1e6)
    assert small * 1e3 > smaller * 1e6  # what is dearer than Gaussian noise vanishes


@pytest.mark.parametrize(("multiplier", "rounds", "delta"), [(1.0, 1, 1e-5), (5.0, 100, 1e-6), (20.0, 1000, 1e-8)])
def test_epsilon_of_much_noise_is_that_of_the_gaussian_mechanism_by_another_library(multiplier, rounds, delta):
    other = dp_accounting.rdp.RdpAccountant(list(accountant.ORDERS))
    other.compose(dp_accounting.GaussianDpEvent(multiplier), rounds)
    reach = 1e5
    found = accountant.epsilon(
        reach=reach, numbers=1000, variance=(multiplier * reach) ** 2, rounds=rounds, delta=delta / 0.99
    )
    assert found == pytest.approx(other.get_epsilon(delta), rel=1e-4)


@pytest.mark.parametrize(("variance", "shift", "delta"), [(4.0, 1, 1e-5), (30.0, 3, 1e-6), (1000.0, 20, 1e-8)])
def test_epsilon_holds_by_the_exact_laws(variance, shift, delta):
    """The exact delta at that epsilon: the sum of P - e^epsilon Q where it is positive."""
    found = accountant.epsilon(reach=shift, numbers=1, variance=variance, rounds=1, delta=delta)
    for here, there in (laws(variance, shift), laws(variance, shift)[::-1]):
        at = np.maximum(np.exp(here) - np.exp(found + there), 0).sum()
        assert at <= delta
        assert np.maximum(np.exp(here) - np.exp(found / 2 + there), 0).sum() > delta  # and is not idle


def test_the_absolute_reach_of_whole_numbers():
    assert accountant.absolute_reach(3.0, 4) == 6.0
    assert accountant.absolute_reach(3.0, 1_000_000) == 9.0
    for row in ([1, 0, 0], [2, -3, 1], [1, 1, 1]):
        reach = float(np.linalg.norm(row))
        assert sum(map(abs, row)) <= accountant.absolute_reach(reach, 3) + 1e-9


ROUNDED = Numbers(100, 10, 0.01, norm=1.0, counted=False)


def test_rounding_enlarges_the_reach_and_so_the_cost():
    size = 1_000_000
    assert ROUNDED.reach(size) == pytest.approx(2**10 / 0.01 + math.sqrt(size) / 2)
    asked = {"variance": 1e11, "rounds": 10, "delta": 1e-6, "least": 70}
    told = accountant.spent(ROUNDED, size, **asked)
    without = accountant.epsilon(
        reach=2**10 / 0.01, numbers=size, variance=1e11, rounds=10, delta=1e-6, clients=100, least=70
    )
    assert 1.003 * without < told < 1.01 * without


def test_the_least_variance_costs_the_target_and_less_costs_more():
    asked, numbers = {"rounds": 100, "delta": 1e-5, "least": 70}, replace(ROUNDED, bits=8)
    variance = accountant.least_variance(numbers, 10_000, target=8.0, **asked)
    assert accountant.spent(numbers, 10_000, variance=variance, **asked) <= 8.0
    assert accountant.spent(numbers, 10_000, variance=variance / 1.002, **asked) > 8.0


def test_more_rounds_less_noise_and_a_smaller_delta_cost_more():
    asked = {"reach": 100.0, "numbers": 50, "variance": 1e6, "rounds": 10, "delta": 1e-5}
    told = accountant.epsilon(**asked)
    assert accountant.epsilon(**{**asked, "rounds": 20}) > told
    assert accountant.epsilon(**{**asked, "variance": 5e5}) > told
    assert accountant.epsilon(**{**asked, "delta": 1e-9}) > told
    assert accountant.epsilon(**{**asked, "reach": 200.0}) > told


def test_no_epsilon_is_told_below_what_the_table_holds():
    asked = {"reach": 1.0, "numbers": 10**9, "variance": 1e3, "rounds": 1000, "clients": 1000}
    assert accountant.epsilon(**asked, delta=1e-9) < math.inf
    assert accountant.epsilon(**asked, delta=1e-24) == math.inf
    assert accountant.epsilon(reach=1e4, numbers=10, variance=1.0, rounds=1000, delta=1e-5) == math.inf


@pytest.mark.parametrize("wrong", [{"weighted": True}, {"counted": True}])
def test_weights_and_counts_beside_noise_are_refused(wrong):
    numbers = Numbers(**{"clients": 10, "bits": 10, "clip": 1.0, "counted": False, **wrong})
    with pytest.raises(ConfigError, match="set weighted and counted to false"):
        accountant.spent(numbers, 100, variance=1e9, rounds=1, delta=1e-5, least=5)


@pytest.mark.parametrize("bits", [20, 24])
def test_noise_that_32_bits_do_not_hold_is_refused(bits):
    numbers = Numbers(100, bits, 1.0, norm=100.0, counted=False)
    with pytest.raises(ConfigError, match="lower the bits"):
        accountant.least_variance(numbers, 100, target=0.1, rounds=1000, delta=1e-9, least=50)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"delta": 0.0}, {"delta": 1.0}, {"reach": math.nan},
                                   {"variance": 0.0}])  # fmt: skip
def test_impossible_questions_are_refused(wrong):
    asked = {"reach": 1.0, "numbers": 3, "variance": 10.0, "rounds": 1, "delta": 1e-5}
    with pytest.raises(ConfigError, match="allowed are"):
        accountant.epsilon(**{**asked, **wrong})
