"""What every aggregator must hold on 25 random cases, and what each refuses."""

import pickle

import pytest
import torch

from fedloom import rng
from fedloom.contracts import Aggregator
from fedloom.errors import DataError, TrainingError
from fedloom.plugin import names
from toy_training import make

CASES = range(25)
AGGREGATORS = names(Aggregator)
every = pytest.mark.parametrize("name", AGGREGATORS)
cases = pytest.mark.parametrize("case", CASES)


def draw(case, dtype=torch.float64):
    """Random rows with a common offset, scales from 1e-3 to 1e3 over the cases, and weights that sum to 1."""
    random, draws = rng.python_random("rows", case), rng.generator("rows", case)
    n_rows, size, magnitude = random.randint(7, 12), random.randint(1, 40), 10.0 ** random.randint(-3, 3)
    centre_P = torch.randn(size, generator=draws, dtype=torch.float64)
    rows_NP = magnitude * (centre_P + torch.randn(n_rows, size, generator=draws, dtype=torch.float64))
    weight_N = torch.rand(n_rows, generator=draws, dtype=torch.float64) + 0.1
    return rows_NP.to(dtype), (weight_N / weight_N.sum()).to(dtype)


def streamed(aggregator, rows, weights):
    total = aggregator.accumulator()
    for row, weight in zip(rows, weights, strict=True):
        total.add(row, float(weight))
    return total.result()


def close(found, expected, *, by):
    """Equal up to a share of the rows' size."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(by.abs().max()))


@every
def test_pickle_round_trip_is_equal(name):
    aggregator = make(Aggregator, name)
    assert pickle.loads(pickle.dumps(aggregator)) == aggregator


@every
@cases
def test_order_of_the_rows_does_not_matter(name, case):
    rows_NP, weight_N = draw(case)
    order = torch.randperm(len(rows_NP), generator=rng.generator("order", case))
    aggregator = make(Aggregator, name)
    close(aggregator(rows_NP[order], weight_N[order]), aggregator(rows_NP, weight_N), by=rows_NP)


@every
@cases
def test_translated_rows_give_the_translated_aggregate(name, case):
    rows_NP, weight_N = draw(case)
    shift_P, aggregator = rows_NP[0].flip(0), make(Aggregator, name)
    close(aggregator(rows_NP + shift_P, weight_N), aggregator(rows_NP, weight_N) + shift_P, by=rows_NP)


@every
@cases
def test_scaled_rows_give_the_scaled_aggregate(name, case):
    rows_NP, weight_N = draw(case)
    aggregator = make(Aggregator, name)
    close(aggregator(-3 * rows_NP, weight_N), -3 * aggregator(rows_NP, weight_N), by=rows_NP)


@every
@cases
def test_equal_rows_are_their_aggregate(name, case):
    rows_NP, weight_N = draw(case)
    close(make(Aggregator, name)(rows_NP[:1].expand_as(rows_NP), weight_N), rows_NP[0], by=rows_NP)


@every
@cases
def test_aggregate_lies_between_the_rows(name, case):
    rows_NP, weight_N = draw(case)
    found_P, slack = make(Aggregator, name)(rows_NP, weight_N), 1e-12 * rows_NP.abs().max()
    assert bool(((found_P >= rows_NP.amin(0) - slack) & (found_P <= rows_NP.amax(0) + slack)).all())


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_aggregate_is_a_row(name, dtype):
    rows_NP, weight_N = draw(0, dtype)
    found_P = make(Aggregator, name)(rows_NP, weight_N)
    assert (found_P.shape, found_P.dtype) == (rows_NP.shape[1:], dtype)


@every
def test_aggregating_changes_none_of_its_inputs(name):
    rows_NP, weight_N = draw(0)
    kept = rows_NP.clone(), weight_N.clone()
    make(Aggregator, name)(rows_NP, weight_N)
    assert torch.equal(rows_NP, kept[0]) and torch.equal(weight_N, kept[1])


@every
def test_streaming_changes_none_of_its_inputs(name):
    rows_NP, weight_N = draw(0)
    kept = rows_NP.clone()
    streamed(make(Aggregator, name), rows_NP, weight_N)
    assert torch.equal(rows_NP, kept)


@every
@cases
def test_streaming_raw_weights_equals_the_matrix_form(name, case):
    rows_NP, weight_N = draw(case)
    aggregator = make(Aggregator, name)
    close(streamed(aggregator, rows_NP, 37 * weight_N), aggregator(rows_NP, weight_N), by=rows_NP)


@every
@cases
def test_streaming_float32_equals_the_matrix_form_to_1e_7(name, case):
    rows_NP, weight_N = draw(case, torch.float32)
    aggregator = make(Aggregator, name)
    found_P, expected_P = streamed(aggregator, rows_NP, weight_N), aggregator(rows_NP, weight_N)
    assert float((found_P - expected_P).norm()) <= 1e-7 * float(expected_P.norm())


@every
def test_result_can_be_asked_for_twice(name):
    rows_NP, weight_N = draw(0)
    total = make(Aggregator, name).accumulator()
    for row_P, weight in zip(rows_NP, weight_N, strict=True):
        total.add(row_P, 3 * float(weight))
    assert torch.equal(total.result(), total.result())


@every
def test_accumulators_do_not_share_rows(name):
    rows_NP, weight_N = draw(0)
    aggregator = make(Aggregator, name)
    first = streamed(aggregator, rows_NP, weight_N)
    streamed(aggregator, 5 * rows_NP, weight_N)
    assert torch.equal(streamed(aggregator, rows_NP, weight_N), first)


@every
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_matrix_with_a_row_that_is_not_finite_is_refused_with_its_index(name, bad):
    rows_NP, weight_N = draw(0)
    rows_NP[3, -1] = bad
    with pytest.raises(TrainingError, match=r"^rows \[3\] hold NaN or infinity"):
        make(Aggregator, name)(rows_NP, weight_N)


@every
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_streamed_row_that_is_not_finite_is_refused_with_its_index(name, bad):
    rows_NP, weight_N = draw(0)
    rows_NP[3, -1] = bad
    with pytest.raises(TrainingError, match=r"^row 3 of the round holds NaN or infinity"):
        streamed(make(Aggregator, name), rows_NP, weight_N)


@every
@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_streamed_weight_that_is_not_positive_is_refused(name, weight):
    rows_NP, _ = draw(0)
    with pytest.raises(DataError, match=r"^row 0 of the round has weight .*: allowed is a finite number > 0\.$"):
        make(Aggregator, name).accumulator().add(rows_NP[0], weight)


@every
def test_matrix_weight_that_is_not_positive_is_refused(name):
    rows_NP, weight_N = draw(0)
    weight_N[1], weight_N[0] = 0.0, weight_N[0] + weight_N[1]
    with pytest.raises(DataError, match=r"^weights \[1\] are \[0\.0\]: allowed is > 0\.$"):
        make(Aggregator, name)(rows_NP, weight_N)


@every
def test_matrix_weights_that_do_not_sum_to_one_are_refused(name):
    rows_NP, weight_N = draw(0)
    with pytest.raises(DataError, match=r"^weights sum to 2: allowed is 1; divide them by their sum\.$"):
        make(Aggregator, name)(rows_NP, 2 * weight_N)


@every
def test_wrong_number_of_weights_is_refused(name):
    rows_NP, weight_N = draw(0)
    with pytest.raises(DataError, match=rf"^{len(rows_NP)} rows have weights of shape .*: give one each\.$"):
        make(Aggregator, name)(rows_NP, weight_N[1:])


@every
def test_matrix_without_rows_is_refused(name):
    with pytest.raises(DataError, match=r"^rows of shape \(0, 4\) have no aggregate"):
        make(Aggregator, name)(torch.zeros(0, 4), torch.zeros(0))


@every
def test_stream_without_rows_is_refused(name):
    with pytest.raises(DataError, match=r"^a round without rows has no "):
        make(Aggregator, name).accumulator().result()


@every
def test_weights_of_another_dtype_are_refused(name):
    rows_NP, weight_N = draw(0)
    with pytest.raises(DataError, match=r"^rows are torch\.float32 and weights torch\.float64"):
        make(Aggregator, name)(rows_NP.float(), weight_N)


@every
def test_streamed_row_of_another_dtype_is_refused(name):
    total = make(Aggregator, name).accumulator()
    total.add(torch.zeros(4), 1.0)
    with pytest.raises(DataError, match=r"^row 1 of the round has shape \(4,\) and is torch\.float64, the first row"):
        total.add(torch.zeros(4, dtype=torch.float64), 1.0)


@every
def test_streamed_row_of_another_length_is_refused(name):
    total = make(Aggregator, name).accumulator()
    total.add(torch.zeros(4), 1.0)
    with pytest.raises(DataError, match=r"^row 1 of the round has shape \(5,\)"):
        total.add(torch.zeros(5), 1.0)


@every
def test_streamed_row_of_whole_numbers_is_refused(name):
    with pytest.raises(DataError, match=r"^row 0 of the round .* torch\.int64: allowed is \[P\], floating\.$"):
        make(Aggregator, name).accumulator().add(torch.zeros(4, dtype=torch.int64), 1.0)


@cases
def test_mean_is_the_sum_of_weight_times_row(case):
    rows_NP, weight_N = draw(case)
    by_hand = [sum(float(w) * float(x) for w, x in zip(weight_N, column, strict=True)) for column in rows_NP.T]
    close(make(Aggregator, "mean")(rows_NP, weight_N), torch.tensor(by_hand, dtype=torch.float64), by=rows_NP)


def test_running_mean_of_one_row_is_that_row_bit_for_bit_at_weight_one():
    rows_NP, _ = draw(1, torch.float32)
    assert torch.equal(streamed(make(Aggregator, "mean"), rows_NP[:1], [1.0]), rows_NP[0])


def test_running_mean_keeps_small_numbers_beside_many_rows():
    row_P = torch.full((3,), 1e-3)
    found_P = streamed(make(Aggregator, "mean"), [row_P] * 20_000, [1.0] * 20_000)
    torch.testing.assert_close(found_P, row_P, rtol=1e-7, atol=0)


def test_running_mean_holds_one_float64_row_whatever_the_number_of_rows():
    total = make(Aggregator, "mean").accumulator()
    for _ in range(50):
        total.add(torch.ones(1000), 1.0)
    held = sum(value.nbytes for value in vars(total).values() if isinstance(value, torch.Tensor))
    assert held == 8 * 1000


def test_running_mean_of_a_row_longer_than_a_chunk():
    row_P = torch.linspace(-1, 1, 600_001)
    torch.testing.assert_close(streamed(make(Aggregator, "mean"), [row_P, 3 * row_P], [1.0, 1.0]), 2 * row_P)
