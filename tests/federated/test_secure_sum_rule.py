"""The rule `secure_sum` by itself: whole numbers, the same sum whoever adds, and what it refuses."""

import pytest
import torch

from fedloom.base import rng
from fedloom.base.errors import ConfigError, DataError, TrainingError
from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Aggregator, Frame
from fedloom.federated.aggregators.secure_sum import as_bytes, as_numbers

FRAME = Frame(Layout((("delta", "w", (40,)),)), torch.zeros(40))


def rule(**settings):
    return lookup(Aggregator, "secure_sum")(**settings)


def rows(count, *, scale=0.3, seed=0):
    return scale * torch.randn(count, 40, generator=rng.generator("secure sum rule", seed))


def summed(one, rows_NP, weights=None):
    accumulator = one.accumulator(FRAME)
    for row_P, weight in zip(rows_NP, weights or [1.0] * len(rows_NP), strict=True):
        accumulator.add(row_P, weight)
    return accumulator.result()


@pytest.mark.parametrize("bits", [8, 16, 20])
def test_the_mean_is_that_of_the_rows_up_to_half_a_step(bits):
    rows_NP = rows(7)
    found = summed(rule(clip=4.0, bits=bits), rows_NP)
    assert (found.row_P - rows_NP.mean(0)).abs().max() <= 4.0 / 2**bits / 2 + 1e-6
    assert found.measures == {"saturated": 0.0}


def test_the_order_of_the_rows_changes_no_bit():
    rows_NP = rows(9)
    assert torch.equal(summed(rule(), rows_NP).row_P, summed(rule(), rows_NP.flip(0)).row_P)


def test_weights_are_shares_of_the_largest():
    rows_NP, weights = rows(4), [1.0, 5.0, 20.0, 8.0]
    found = summed(rule(clip=4.0, largest_weight=20.0), rows_NP, weights).row_P
    expected = sum(w * row for w, row in zip(weights, rows_NP, strict=True)) / sum(weights)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_sum_that_comes_as_it_is_is_that_of_the_rows():
    one, rows_NP = rule(), rows(5)
    whole = sum(as_numbers(one.summand(row_P, 1.0)) for row_P in rows_NP)
    accumulator = one.accumulator(FRAME)
    accumulator.add_sum(as_bytes(whole), 5)
    assert torch.equal(accumulator.result().row_P, summed(one, rows_NP).row_P)


@pytest.mark.parametrize(("n_bytes", "text"), [(4, "1 whole numbers beside 42"), (7, "7 bytes, allowed are whole")])
def test_whole_numbers_of_another_length_are_refused(n_bytes, text):
    accumulator = rule().accumulator(FRAME)
    accumulator.add(rows(1)[0], 1.0)
    with pytest.raises(DataError, match=text):
        accumulator.add_sum(torch.zeros(n_bytes, dtype=torch.uint8), 1)


def test_where_the_norm_keeps_numbers_inside_the_clip_none_is_counted():
    assert rule(norm=1.0).upload_bytes(40) == 4 * 40 and rule(norm=1.5).upload_bytes(40) == 4 * 42
    row_P = rows(1)[0]
    scaled = row_P / row_P.norm()
    torch.testing.assert_close(summed(rule(norm=1.0), [row_P] * 3).row_P, scaled, rtol=0, atol=1e-6)


def test_clipped_numbers_are_counted_and_told(caplog):
    rows_NP = rows(3)
    rows_NP[0, :2] = 9.0
    assert summed(rule(clip=2.0), rows_NP).measures["saturated"] == pytest.approx(2 / 120)
    assert "clipped at 2" in caplog.text


def test_long_rows_are_scaled_down():
    row_P = torch.ones(40)
    assert summed(rule(clip=2.0, norm=1.0), [row_P] * 3).row_P.norm() == pytest.approx(1.0, abs=1e-4)


def test_bytes_that_leave_are_those_of_the_masked_row():
    assert rule().upload_bytes(40) == 4 * 42 and rule(largest_weight=2.0).upload_bytes(40) == 4 * 43


@pytest.mark.parametrize(
    ("settings", "weight", "text"),
    [({}, 2.0, "found weight 2, allowed is 1"), ({"largest_weight": 3.0}, 4.0, "aggregator.largest_weight = 3")],
)
def test_weights_that_do_not_fit_are_refused(settings, weight, text):
    with pytest.raises(DataError, match=text):
        summed(rule(**settings), rows(1), [weight])


@pytest.mark.parametrize(("bits", "count"), [(20, 2), (20, 2049), (29, 5)])
def test_too_few_and_too_many_rows_are_refused(bits, count):
    with pytest.raises(ConfigError, match=r"aggregator\.bits: found"):
        rule(bits=bits).check_count(count)
    rule(bits=20).check_count(3)
    rule(bits=20).check_count(2048)


def test_nothing_and_what_is_not_finite_is_refused():
    with pytest.raises(DataError, match="a round without rows"):
        rule().accumulator(FRAME).result()
    with pytest.raises(TrainingError, match="NaN or infinity"):
        summed(rule(), torch.full((1, 40), float("nan")))


def test_below_fifty_clients_the_threshold_follows_from_their_number():
    assert (rule().size(3).threshold, rule().size(10).threshold, rule().size(10).degree) == (3, 7, 9)
    assert rule().size(100).degree == 22
