"""What every aggregator must hold on 6 random cases, and what each refuses.

Aggregators of factors keep what the factors mean: their products. They are held to the same properties there. What a
rule does not promise it says itself, by class variables of the contract. Rules that look at the model are tested where
there is one.
"""

import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch

from fedloom.base import rng
from fedloom.base.errors import DataError, TrainingError
from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Aggregator, Frame
from fedloom.federated.aggregators import mean
from support.plugins import without_settings

CASES = range(6)
AGGREGATORS = [name for name in without_settings(Aggregator) if not lookup(Aggregator, name).sum_only]
"""Those that see rows; of a sum alone tests/federated/test_secure_sum_rule.py tells."""
OF_FACTORS = {"lora_stack", "lora_svd"}
"""Those that keep what the factors of a row mean, and not the row."""
every = pytest.mark.parametrize("name", AGGREGATORS)


def those(promising):
    return pytest.mark.parametrize("name", [n for n in AGGREGATORS if promising(lookup(Aggregator, n))])


elementwise = those(lambda rule: rule.name not in OF_FACTORS)
unanchored = those(lambda rule: rule.name not in OF_FACTORS and not (rule.anchored or rule.noisy))
symmetric = those(lambda rule: rule.name not in OF_FACTORS and not (rule.one_sided or rule.noisy))
trusting = those(lambda rule: not (rule.distrusts_copies or rule.noisy))
between = those(lambda rule: not (rule.anchored or rule.noisy))
claiming = those(lambda rule: rule().tolerates(12) > 0)
cases = pytest.mark.parametrize("case", CASES)


def make(family, name, **settings):
    return lookup(family, name)(**settings)


def draw(case, dtype=torch.float64):
    """Random rows with a common offset, scales from 1e-3 to 1e3 over the cases, and weights that sum to 1."""
    random, draws = rng.python_random("rows", case), rng.generator("rows", case)
    n_rows, size, magnitude = random.randint(7, 12), frame(case).layout.size, 10.0 ** random.randint(-3, 3)
    centre_P = torch.randn(size, generator=draws, dtype=torch.float64)
    rows_NP = magnitude * (centre_P + torch.randn(n_rows, size, generator=draws, dtype=torch.float64))
    weight_N = torch.rand(n_rows, generator=draws, dtype=torch.float64) + 0.1
    return rows_NP.to(dtype), (weight_N / weight_N.sum()).to(dtype)


def frame(case, dtype=torch.float64):
    """Two layers of factors, one no wider than its rank is, and tensors that are none, in two slots."""
    random = rng.python_random("frame", case)
    width, output, other = random.randint(1, 9), random.randint(1, 3), random.randint(1, 20)
    shapes = {"x.lora_A": (3, width), "x.lora_B": (output, 3), "norm": (other,)}
    entries = [("delta", name, shape) for name, shape in shapes.items()] + [("control", "norm", (other,))]
    size = sum(torch.Size(shape).numel() for shape in shapes.values())
    anchor_P = torch.randn(size, generator=rng.generator("anchor", case), dtype=torch.float64)
    return Frame(Layout(tuple(entries)), anchor_P.to(dtype))


def meaning(name, rows, frame):
    """What must be aggregated: the numbers, or the products of the factors and all other numbers."""
    if name not in OF_FACTORS:
        return rows
    slots, (_, a_shape), (_, b_shape) = frame.layout.slots(rows), *((e[1], e[2]) for e in frame.layout.entries[:2])
    anchor_P, split = frame.anchor_P, torch.Size(a_shape).numel()
    a = slots["delta"]["x.lora_A"] + anchor_P[:split].view(a_shape)
    b = slots["delta"]["x.lora_B"] + anchor_P[split : split + torch.Size(b_shape).numel()].view(b_shape)
    return torch.cat([(b @ a).flatten(-2), slots["delta"]["norm"], slots["control"]["norm"]], dim=-1)


def streamed(aggregator, rows, weights, case=0):
    total = aggregator.accumulator(frame(case))
    for row, weight in zip(rows, weights, strict=True):
        total.add(row, float(weight))
    return total.result().row_P


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
    found_P = meaning(name, aggregator(rows_NP[order], weight_N[order], frame(case)), frame(case))
    expected_P = meaning(name, aggregator(rows_NP, weight_N, frame(case)), frame(case))
    close(found_P, expected_P, by=meaning(name, rows_NP, frame(case)))


@unanchored
@cases
def test_translated_rows_give_the_translated_aggregate(name, case):
    rows_NP, weight_N = draw(case)
    shift_P, aggregator = rows_NP[0].flip(0), make(Aggregator, name)
    found_P = aggregator(rows_NP + shift_P, weight_N, frame(case))
    close(found_P, aggregator(rows_NP, weight_N, frame(case)) + shift_P, by=rows_NP)


@symmetric
@cases
def test_scaled_rows_give_the_scaled_aggregate(name, case):
    rows_NP, weight_N = draw(case)
    aggregator = make(Aggregator, name)
    found_P = aggregator(-3 * rows_NP, weight_N, frame(case))
    close(found_P, -3 * aggregator(rows_NP, weight_N, frame(case)), by=rows_NP)


@trusting
@cases
def test_equal_rows_are_their_aggregate(name, case):
    rows_NP, weight_N = draw(case)
    found_P = make(Aggregator, name)(rows_NP[:1].repeat(len(rows_NP), 1), weight_N, frame(case))
    meant_NQ = meaning(name, rows_NP, frame(case))
    close(meaning(name, found_P, frame(case)), meant_NQ[0], by=meant_NQ)


@between
@cases
def test_aggregate_lies_between_the_rows(name, case):
    rows_NP, weight_N = draw(case)
    meant_NQ = meaning(name, rows_NP, frame(case))
    found_Q = meaning(name, make(Aggregator, name)(rows_NP, weight_N, frame(case)), frame(case))
    slack = 1e-12 * meant_NQ.abs().max()
    assert bool(((found_Q >= meant_NQ.amin(0) - slack) & (found_Q <= meant_NQ.amax(0) + slack)).all())


@claiming
@cases
@pytest.mark.parametrize("direction", ["alike", "apart"])
def test_rows_that_it_tolerates_move_the_aggregate_by_a_bounded_amount(name, case, direction):
    """As many rows as claimed, a million times farther out than the others, in one direction or in many."""
    rows_NP, _ = draw(case)
    aggregator, n_rows = make(Aggregator, name), len(rows_NP)
    weight_N = torch.full((n_rows,), 1 / n_rows, dtype=torch.float64)
    n_bad, draws = aggregator.tolerates(n_rows), rng.generator("attack", case)
    spread = float((rows_NP - rows_NP.mean(0)).norm(dim=1).max())
    attack_P = torch.randn(1 if direction == "alike" else n_bad, rows_NP.shape[1], generator=draws, dtype=torch.float64)
    bad_NP = torch.cat([rows_NP[: n_rows - n_bad], (1e6 * spread * attack_P).expand(n_bad, -1)])
    order = torch.randperm(n_rows, generator=draws)
    found_P = aggregator(bad_NP[order], weight_N, frame(case))
    size = float(rows_NP.norm(dim=1).max()) if aggregator.anchored else 0.0
    assert float((found_P - rows_NP[: n_rows - n_bad].mean(0)).norm()) <= 10 * spread + 2 * size


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_aggregate_is_a_row(name, dtype):
    rows_NP, weight_N = draw(0, dtype)
    found_P = make(Aggregator, name)(rows_NP, weight_N, frame(0, dtype))
    assert (found_P.shape, found_P.dtype) == (rows_NP.shape[1:], dtype)


@every
def test_aggregating_changes_none_of_its_inputs(name):
    rows_NP, weight_N = draw(0)
    kept = rows_NP.clone(), weight_N.clone()
    make(Aggregator, name)(rows_NP, weight_N, frame(0))
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
    found_Q = meaning(name, streamed(aggregator, rows_NP, 37 * weight_N, case), frame(case))
    expected_Q = meaning(name, aggregator(rows_NP, weight_N, frame(case)), frame(case))
    close(found_Q, expected_Q, by=meaning(name, rows_NP, frame(case)))


@elementwise
@cases
def test_streaming_float32_equals_the_matrix_form_to_1e_7(name, case):
    rows_NP, weight_N = draw(case, torch.float32)
    aggregator = make(Aggregator, name)
    found_P, expected_P = streamed(aggregator, rows_NP, weight_N), aggregator(rows_NP, weight_N, frame(case))
    assert float((found_P - expected_P).norm()) <= 1e-7 * float(expected_P.norm())


@every
def test_result_can_be_asked_for_twice(name):
    rows_NP, weight_N = draw(0)
    total = make(Aggregator, name).accumulator(frame(0))
    for row_P, weight in zip(rows_NP, weight_N, strict=True):
        total.add(row_P, 3 * float(weight))
    assert torch.equal(total.result().row_P, total.result().row_P)


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
        make(Aggregator, name)(rows_NP, weight_N, frame(0))


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
        make(Aggregator, name).accumulator(frame(0)).add(rows_NP[0], weight)


@every
def test_matrix_weight_that_is_not_positive_is_refused(name):
    rows_NP, weight_N = draw(0)
    weight_N[1], weight_N[0] = 0.0, weight_N[0] + weight_N[1]
    with pytest.raises(DataError, match=r"^weights \[1\] are \[0\.0\]: allowed is > 0\.$"):
        make(Aggregator, name)(rows_NP, weight_N, frame(0))


@every
def test_matrix_weights_that_do_not_sum_to_one_are_refused(name):
    rows_NP, weight_N = draw(0)
    with pytest.raises(DataError, match=r"^weights sum to 2: allowed is 1; divide them by their sum\.$"):
        make(Aggregator, name)(rows_NP, 2 * weight_N, frame(0))


@every
def test_wrong_number_of_weights_is_refused(name):
    rows_NP, weight_N = draw(0)
    with pytest.raises(DataError, match=rf"^{len(rows_NP)} rows have weights of shape .*: give one each\.$"):
        make(Aggregator, name)(rows_NP, weight_N[1:], frame(0))


@every
def test_matrix_without_rows_is_refused(name):
    with pytest.raises(DataError, match=r"^rows of shape \(0, 4\) have no aggregate"):
        make(Aggregator, name)(torch.zeros(0, 4), torch.zeros(0), frame(0))


@every
def test_stream_without_rows_is_refused(name):
    with pytest.raises(DataError, match=r"^a round without rows has no "):
        make(Aggregator, name).accumulator(frame(0)).result()


@every
def test_weights_of_another_dtype_are_refused(name):
    rows_NP, weight_N = draw(0)
    with pytest.raises(DataError, match=r"^rows are torch\.float32 and weights torch\.float64"):
        make(Aggregator, name)(rows_NP.float(), weight_N, frame(0))


@every
def test_streamed_row_of_another_dtype_is_refused(name):
    total = make(Aggregator, name).accumulator(frame(0))
    total.add(torch.zeros(4), 1.0)
    with pytest.raises(DataError, match=r"^row 1 of the round has shape \(4,\) and is torch\.float64, the first row"):
        total.add(torch.zeros(4, dtype=torch.float64), 1.0)


@every
def test_streamed_row_of_another_length_is_refused(name):
    total = make(Aggregator, name).accumulator(frame(0))
    total.add(torch.zeros(4), 1.0)
    with pytest.raises(DataError, match=r"^row 1 of the round has shape \(5,\)"):
        total.add(torch.zeros(5), 1.0)


@every
def test_streamed_row_of_whole_numbers_is_refused(name):
    with pytest.raises(
        DataError, match=r"^row 0 of the round .* torch\.int64: allowed is \[P\], float32 or float64\.$"
    ):
        make(Aggregator, name).accumulator(frame(0)).add(torch.zeros(4, dtype=torch.int64), 1.0)


@every
def test_measures_are_finite_and_not_negative(name):
    total = make(Aggregator, name).accumulator(frame(0))
    for row_P in draw(0)[0]:
        total.add(row_P, 1.0)
    assert all(0 <= value < float("inf") for value in total.result().measures.values())


def mean_of(rows, weights):
    return streamed(make(Aggregator, "mean"), rows, weights)


@cases
def test_mean_is_the_sum_of_weight_times_row(case):
    rows_NP, weight_N = draw(case)
    by_hand = [sum(float(w) * float(x) for w, x in zip(weight_N, column, strict=True)) for column in rows_NP.T]
    found_P = make(Aggregator, "mean")(rows_NP, weight_N, frame(case))
    close(found_P, torch.tensor(by_hand, dtype=torch.float64), by=rows_NP)


def test_running_mean_of_one_row_is_that_row_bit_for_bit_at_weight_one():
    rows_NP, _ = draw(1, torch.float32)
    assert torch.equal(mean_of(rows_NP[:1], [1.0]), rows_NP[0])


def test_running_mean_keeps_small_numbers_beside_many_rows():
    row_P = torch.full((3,), 1e-3)
    torch.testing.assert_close(mean_of([row_P] * 20_000, [1.0] * 20_000), row_P, rtol=1e-7, atol=0)


def test_running_mean_in_another_order_and_grouping_differs_in_the_last_bit_at_most():
    rows_NP = torch.randn(23, 1000, generator=rng.generator("grouping"))
    weights = torch.rand(23, generator=rng.generator("weights")) + 0.1
    order = torch.randperm(23, generator=rng.generator("order"))
    found_P, other_P = mean_of(rows_NP, weights), mean_of(rows_NP[order], weights[order])
    assert bool(((found_P == other_P) | (torch.nextafter(found_P, other_P) == other_P)).all())


def test_running_mean_is_as_exact_as_a_sum_of_fractions():
    rows_NP = 1e4 * torch.randn(23, 200, generator=rng.generator("fractions"))
    exact = [float(sum(Fraction(float(x)) for x in column) / 23) for column in rows_NP.T]
    assert torch.equal(mean_of(rows_NP, [1.0] * 23), torch.tensor(exact, dtype=torch.float64).float())


def held_bytes(total):
    """Bytes of tensors and arrays that an accumulator holds."""
    values = [item for value in vars(total).values() for item in (value if isinstance(value, list) else [value])]
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor | np.ndarray))


def test_running_mean_holds_no_more_after_a_thousand_rows_than_after_seventeen():
    total, held = make(Aggregator, "mean").accumulator(frame(0)), []
    for _ in range(1001):
        total.add(torch.ones(1000), 1.0)
        held.append(held_bytes(total))
    assert held[-1] == held[16]


def test_a_sum_that_lies_in_a_file_is_the_same_to_the_last_bit(monkeypatch):
    size = 3 * mean.CHUNK + 17
    rows = [torch.randn(size, generator=rng.generator("filed", at)) for at in range(4)]

    def meant():
        total = mean.RunningMean(held_bytes=4 * size)
        for at, row_P in enumerate(rows):
            total.add(row_P, 1.0 + at)
        return total, total.result().row_P

    _, in_memory = meant()
    monkeypatch.setattr(mean, "FILED_BYTES", 1)
    total, filed = meant()
    assert total._file is not None and torch.equal(filed, in_memory)
    assert torch.equal(total.result().row_P, filed)


def test_running_mean_holds_few_rows_where_they_are_large():
    total = mean.RunningMean(held_bytes=4 * 1000)
    for _ in range(5):
        total.add(torch.ones(1000), 1.0)
    assert held_bytes(total) == 8 * 1000


@pytest.mark.parametrize("size", [1, mean.CHUNK - 1, mean.CHUNK, mean.CHUNK + 1, 3 * mean.CHUNK + 7])
@pytest.mark.parametrize("n_rows", [1, mean.HELD_ROWS, mean.HELD_ROWS + 1, 2 * mean.HELD_ROWS + 1])
def test_running_mean_at_the_edges_of_chunks_and_of_held_rows(size, n_rows):
    row_P = torch.linspace(-1, 1, size)
    found_P = mean_of([(k + 1) * row_P for k in range(n_rows)], [1.0] * n_rows)
    torch.testing.assert_close(found_P, (n_rows + 1) / 2 * row_P)


@pytest.mark.parametrize("bad", [0, 5, 16])
def test_row_that_is_not_finite_is_found_after_many_more(bad):
    rows = [torch.zeros(3) for _ in range(20)]
    rows[bad][1] = float("nan")
    with pytest.raises(TrainingError, match=rf"^row {bad} of the round holds NaN or infinity"):
        mean_of(rows, [1.0] * 20)


def test_rows_of_opposite_infinities_are_refused():
    with pytest.raises(TrainingError, match=r"^row 0 of the round holds NaN or infinity"):
        mean_of([torch.tensor([float("inf")]), torch.tensor([-float("inf")])], [1.0, 1.0])


def test_numbers_whose_sum_overflows_float32_are_averaged():
    row_P = torch.full((3,), 3e38)
    assert torch.equal(mean_of([row_P, row_P], [1.0, 1.0]), row_P)


def test_weights_too_large_for_float64_are_refused():
    with pytest.raises(TrainingError, match=r"^the sum of 2 rows overflows: give smaller weights\.$"):
        mean_of([torch.full((3,), 1e30)] * 2, [1e300, 1e300])


def test_row_of_bfloat16_is_refused():
    with pytest.raises(
        DataError, match=r"^row 0 of the round .* torch\.bfloat16: allowed is \[P\], float32 or float64"
    ):
        mean_of([torch.zeros(3, dtype=torch.bfloat16)], [1.0])


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [3.0, 1.0, 0.5]])
def test_drift_is_the_root_of_the_weighted_mean_square_distance_from_the_mean(weights):
    rows_NP = np.random.default_rng(0).normal(size=(3, 50)) + 3.0
    mean_P = np.average(rows_NP, axis=0, weights=weights)
    wanted = np.sqrt(np.average(((rows_NP - mean_P) ** 2).sum(1), weights=weights))
    accumulator = lookup(Aggregator, "mean")().accumulator(frame(0))
    for row_P, weight in zip(rows_NP, weights, strict=True):
        accumulator.add(torch.from_numpy(row_P), weight)
    assert accumulator.result().measures == {"drift": pytest.approx(wanted)}


def test_one_row_and_equal_rows_do_not_drift():
    row_P = torch.linspace(0, 1, 50)
    for n in (1, 4):
        accumulator = lookup(Aggregator, "mean")().accumulator(frame(0))
        for _ in range(n):
            accumulator.add(row_P, 1.0)
        assert accumulator.result().measures["drift"] == pytest.approx(0, abs=1e-3)
