"""Robust aggregation: against the papers' pseudo-code, by hand, at the limits, and in runs."""

from dataclasses import replace

import pytest
import torch

from fedloom import api
from fedloom.base import rng
from fedloom.base.errors import ConfigError
from fedloom.base.gram import cosines, gram, norms, squared_distances
from fedloom.base.plugin import lookup, names
from fedloom.base.tree import Layout
from fedloom.contracts.aggregation import SHARE, Aggregator, Frame
from fedloom.federated.aggregators._columns import by_column, middle
from fedloom.federated.aggregators._products import gram_of
from fedloom.federated.aggregators._suspects import above_the_gap
from fedloom.federated.aggregators.krum import krum_scores
from fedloom.federated.attackers import drawn_attackers
from fedloom.runs.directory import RunDirectory
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run
from support import numbers, oracles
from support.plugins import without_settings
from support.resuming import logs, unbroken_and_stopped

cases = pytest.mark.parametrize("case", range(12))
PUBLISHED = [name for name in names(Aggregator) if lookup(Aggregator, name).outside_theorem]
UNSEEING = [name for name in without_settings(Aggregator) if not lookup(Aggregator, name).sum_only]


def rule(name, **settings):
    return lookup(Aggregator, name)(**settings)


def drawn(case, *, least=7, most=13, size=17):
    """Rows with a common part, in float64, and weights that sum to 1."""
    n_rows = rng.python_random("robust", case).randint(least, most)
    draws = rng.generator("robust", case)
    rows_NP = torch.randn(n_rows, size, generator=draws, dtype=torch.float64) + torch.randn(
        size, generator=draws, dtype=torch.float64
    )
    weight_N = torch.rand(n_rows, generator=draws, dtype=torch.float64) + 0.1
    return rows_NP, weight_N / weight_N.sum()


def bare(size, **changes):
    return replace(Frame(Layout((("delta", "x", (size,)),)), torch.zeros(size, dtype=torch.float64)), **changes)


def equal(n_rows):
    return torch.full((n_rows,), 1 / n_rows, dtype=torch.float64)


def by_rule(name, rows, weight_N=None, frame=None, **settings):
    rows_NP = torch.as_tensor(rows, dtype=torch.float64)
    weight_N = equal(len(rows_NP)) if weight_N is None else weight_N
    return rule(name, **settings).aggregate(rows_NP, weight_N, frame or bare(rows_NP.shape[1]))


def named(rows_NP, **changes):
    """A frame in which row i is the client "i"."""
    clients = tuple(str(index) for index in range(len(rows_NP)))
    return bare(rows_NP.shape[1], clients=clients, population=clients, **changes)


def agree(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found.row_P, torch.as_tensor(expected, dtype=torch.float64), rtol=0, atol=tolerance)


# -------------------------------------------------------------------------------------------- the papers' pseudo-code


@cases
def test_medians_are_those_of_every_number_alone(case):
    rows_NP, _ = drawn(case)
    agree(by_rule("median", rows_NP), oracles.coordinate_median(rows_NP.tolist()))
    agree(by_rule("median_as_published", rows_NP), oracles.coordinate_median(rows_NP.tolist(), lower=True))


@cases
@pytest.mark.parametrize("beta", [1, 2, 3])
def test_trimmed_mean_is_that_of_every_number_alone(case, beta):
    rows_NP, weight_N = drawn(case)
    agree(by_rule("trimmed_mean", rows_NP, weight_N, beta=beta), oracles.trimmed_mean(rows_NP.tolist(), beta))


@cases
def test_trimmed_mean_as_published_trims_one(case):
    rows_NP, _ = drawn(case, least=3)
    agree(by_rule("trimmed_mean_as_published", rows_NP), oracles.trimmed_mean(rows_NP.tolist(), 1))


@cases
@pytest.mark.parametrize("f", [0, 1, 2])
def test_krum_and_multi_krum_follow_the_scores_of_the_paper(case, f):
    rows_NP, weight_N = drawn(case)
    rows, weights = rows_NP.tolist(), weight_N.tolist()
    agree(by_rule("krum", rows_NP, weight_N, f=f), oracles.multi_krum(rows, weights, f, 1))
    agree(by_rule("multi_krum", rows_NP, weight_N, f=f), oracles.multi_krum(rows, weights, f, len(rows) - f))
    agree(by_rule("multi_krum", rows_NP, weight_N, f=f, m=3), oracles.multi_krum(rows, weights, f, 3))


@cases
@pytest.mark.parametrize("f", [1, 2, 3])
def test_krum_as_published_averages_the_winner_with_its_neighbours(case, f):
    rows_NP, weight_N = drawn(case, least=5)
    expected = oracles.krum_as_published(rows_NP.tolist(), weight_N.tolist(), f)
    agree(by_rule("krum_as_published", rows_NP, weight_N, f=f), expected)


@cases
@pytest.mark.parametrize("f", [1, 2])
def test_bulyan_follows_the_paper(case, f):
    rows_NP, weight_N = drawn(case, least=4 * f + 3, most=4 * f + 6)
    agree(by_rule("bulyan", rows_NP, weight_N, f=f), oracles.bulyan(rows_NP.tolist(), f))


@cases
def test_geometric_median_follows_weiszfelds_steps_on_the_point_itself(case):
    rows_NP, weight_N = drawn(case)
    expected = oracles.geometric_median(rows_NP.tolist(), weight_N.tolist())
    agree(by_rule("geometric_median", rows_NP, weight_N), expected, 1e-8)


@cases
def test_clipped_mean_follows_the_paper(case):
    rows_NP, weight_N = drawn(case)
    agree(by_rule("norm_clip", rows_NP, weight_N), oracles.norm_clipped(rows_NP.tolist(), weight_N.tolist()))


@cases
def test_foolsgold_follows_the_paper_over_rounds_in_which_clients_come_and_go(case):
    random, state, rounds, found = rng.python_random("rounds", case), {}, [], []
    for number in range(4):
        rows_NP, weight_N = drawn(100 * case + number)
        clients = tuple(random.sample([f"c{k}" for k in range(15)], len(rows_NP)))
        done = by_rule("foolsgold", rows_NP, weight_N, bare(17, clients=clients, state=state))
        state = done.state
        rounds.append(dict(zip(clients, rows_NP.tolist(), strict=True)))
        found.append(done)
    for done, expected in zip(found, oracles.foolsgold(rounds), strict=True):
        agree(done, expected)


@cases
def test_foolsgold_as_published_follows_the_public_code(case):
    rows_NP, _ = drawn(case)
    agree(by_rule("foolsgold_as_published", rows_NP), oracles.foolsgold_as_published(rows_NP.tolist()))


@cases
def test_residual_reweighting_follows_the_paper(case):
    rows_NP, _ = drawn(case, least=4)
    rows_NP[0] += 30.0 * (case % 2)
    agree(by_rule("residual", rows_NP), oracles.residual_reweighted(rows_NP.tolist()))
    agree(by_rule("residual_as_published", rows_NP), oracles.residual_reweighted(rows_NP.tolist(), delta=0.05))
    agree(
        by_rule("residual", rows_NP, strictness=0.5, delta=0.4),
        oracles.residual_reweighted(rows_NP.tolist(), lam=0.5, delta=0.4),
    )


@cases
@pytest.mark.parametrize(("f", "c"), [(1, 1.0), (2, 1.0), (1, 1.5), (3, 0.5)])
def test_dnc_of_all_numbers_follows_the_paper(case, f, c):
    rows_NP, weight_N = drawn(case)
    count = -int(-c * f // 1)
    expected = oracles.dnc(rows_NP.tolist(), weight_N.tolist(), [range(17)], count)
    agree(by_rule("dnc", rows_NP, weight_N, f=f, c=c, coordinates=0), expected)
    agree(by_rule("dnc", rows_NP, weight_N, f=f, c=c, coordinates=17, iterations=3), expected)


@cases
def test_dnc_of_drawn_numbers_drops_what_any_iteration_drops(case):
    rows_NP, weight_N = drawn(case, least=9)
    draws = [
        rng.numpy_random("dnc", 5, case, iteration).choice(17, 6, replace=False).tolist() for iteration in range(3)
    ]
    expected = oracles.dnc(rows_NP.tolist(), weight_N.tolist(), draws, 2)
    found = by_rule("dnc", rows_NP, weight_N, bare(17, seed=5, round=case), f=2, iterations=3, coordinates=6)
    agree(found, expected)


@cases
def test_dnc_as_published_is_one_iteration(case):
    rows_NP, weight_N = drawn(case, least=3)
    expected = oracles.dnc(rows_NP.tolist(), weight_N.tolist(), [range(17)], 1)
    agree(by_rule("dnc_as_published", rows_NP, weight_N), expected)


def test_dnc_as_published_draws_ten_thousand_numbers():
    rows_NP = torch.randn(5, 10_050, generator=rng.generator("long"), dtype=torch.float64)
    columns = rng.numpy_random("dnc", 0, 0, 0).choice(10_050, 10_000, replace=False).tolist()
    agree(by_rule("dnc_as_published", rows_NP), oracles.dnc(rows_NP.tolist(), [1.0] * 5, [columns], 1))


@cases
def test_flame_without_noise_clips_the_largest_cluster(case):
    rows_NP, weight_N = drawn(case)
    rows_NP[:2] = -5 * rows_NP[:2].flip(1)
    found = by_rule("flame", rows_NP, weight_N, named(rows_NP), noise=0.0)
    agree(found, oracles.flame(rows_NP.tolist(), weight_N.tolist()))
    inside = {str(index) for index in oracles.flame_cluster(rows_NP.tolist())}
    assert set(found.left_out) == {str(index) for index in range(len(rows_NP))} - inside


# -------------------------------------------------------------------------------------------------------- by hand


def test_medians_by_hand():
    rows = [[1.0, 9.0], [2.0, 7.0], [4.0, 5.0], [100.0, -100.0]]
    agree(by_rule("median", rows), [3.0, 6.0])
    agree(by_rule("median_as_published", rows), [2.0, 5.0])
    agree(by_rule("trimmed_mean", rows), [3.0, 6.0])


def test_krum_by_hand():
    """n = 5, f = 1: two neighbours. Scores: 1 + 4, 1 + 1, 1 + 4, ... of 0, 1, 2, 10, 11."""
    rows = [[0.0], [1.0], [2.0], [10.0], [11.0]]
    found = by_rule("krum", rows, frame=named(torch.tensor(rows)))
    agree(found, [1.0])
    assert [found.scores[str(k)]["score"] for k in range(5)] == [5.0, 2.0, 5.0, 65.0, 82.0]
    agree(by_rule("multi_krum", rows), [(0 + 1 + 2 + 10) / 4])


def test_krum_as_published_of_three_rows_is_the_mean_of_the_nearest_pair():
    agree(by_rule("krum_as_published", [[0.0], [1.0], [5.0]]), [0.5])


def test_bulyan_by_hand():
    """Krum takes 3, 4, 2, 5 and of the last three 500; the 3 values nearest to their median 4 are 3, 4 and 5."""
    agree(by_rule("bulyan", [[1.0], [2.0], [3.0], [4.0], [5.0], [500.0], [900.0]]), [4.0])


def test_geometric_median_of_a_line_is_its_middle_and_of_a_triangle_is_fermats_point():
    agree(by_rule("geometric_median", [[0.0], [1.0], [50.0]]), [1.0], 1e-4)
    side = 3**0.5 / 2
    agree(by_rule("geometric_median", [[0.0, 1.0], [-side, -0.5], [side, -0.5]]), [0.0, 0.0])


def test_clipped_mean_by_hand():
    """Lengths 1, 2 and 10: the longest becomes 2."""
    rows_NP = torch.tensor([[1.0, 0.0], [0.0, 2.0], [6.0, 8.0]])
    found = by_rule("norm_clip", rows_NP, frame=named(rows_NP))
    agree(found, [(1 + 1.2) / 3, (2 + 1.6) / 3])
    assert found.scores["2"]["norm"] == pytest.approx(10.0)
    assert found.scores["2"][SHARE] == pytest.approx(0.2 / 2.2)


def test_foolsgold_by_hand():
    """Two copies and a stranger: the copies have no weight, the stranger's row is the aggregate."""
    rows_NP = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    found = by_rule("foolsgold", rows_NP, frame=named(rows_NP))
    agree(found, [0.0, 1.0])
    assert [found.scores[str(k)]["trust"] for k in range(3)] == [0.0, 0.0, 1.0]
    assert set(found.left_out) == {"0", "1"}


def test_foolsgold_amplifies_a_lone_attacker_among_rows_that_are_alike():
    """Pitfall (b) of the safety guide: two benign rows alike look like sybils."""
    rows_NP = torch.tensor([[1.0, 0.1], [1.0, 0.12], [-1.0, 1.0]])
    found = by_rule("foolsgold_as_published", rows_NP, frame=named(rows_NP))
    assert found.scores["2"][SHARE] == 1.0


def test_foolsgold_remembers_what_clients_sent():
    """Rows of the second round alone look unlike; what both clients have sent so far does not."""
    first_NP, second_NP = torch.tensor([[9.0, 9.0], [9.0, 9.0], [-9.0, 1.0]]), torch.eye(3)[:, :2] + 0.01
    state = by_rule("foolsgold", first_NP, frame=named(first_NP)).state
    remembering = by_rule("foolsgold", second_NP, frame=named(second_NP, state=state))
    forgetting = by_rule("foolsgold", second_NP, frame=named(second_NP))
    assert remembering.scores["0"]["trust"] < 0.1 < 0.9 < forgetting.scores["0"]["trust"]


def test_foolsgold_keeps_the_history_of_clients_that_are_not_there():
    rows_NP = torch.ones(3, 2, dtype=torch.float64)
    absent_P = torch.tensor([3.0, 4.0], dtype=torch.float64)
    found = by_rule("foolsgold", rows_NP, frame=named(rows_NP, state={"away": absent_P, "1": absent_P}))
    assert torch.equal(found.state["away"], absent_P)
    assert found.state["1"].tolist() == [4.0, 5.0]


def test_residual_of_values_on_a_line_is_their_mean_and_a_far_value_is_mended():
    agree(by_rule("residual", [[1.0], [2.0], [3.0], [4.0], [5.0]]), [3.0])
    rows_NP = torch.tensor([[1.0], [2.1], [2.9], [4.0], [5.1], [1e6]])
    found = by_rule("residual", rows_NP, frame=named(rows_NP))
    assert 0.0 < float(found.row_P) < 7.0
    assert found.scores["5"]["trust"] < 0.01


def test_residual_as_published_of_three_values_is_the_mean_of_the_outer_two():
    """The line passes through them, so that tau is 0 and the middle value counts nothing."""
    agree(by_rule("residual_as_published", [[0.0], [1.0], [10.0]]), [5.0])


def test_dnc_by_hand():
    """Centred rows differ most along the first number, where the third is farthest out."""
    rows = [[0.0, 0.1], [1.0, -0.1], [9.0, 0.0], [2.0, 0.0]]
    agree(by_rule("dnc", rows, coordinates=0), [1.0, 0.0])


def test_flame_by_hand():
    """Six rows along one direction and two along another: those are dropped, lengths are cut to the median 2."""
    rows_NP = torch.tensor([[2.0, 0.0], [2.0, 0.1], [2.0, -0.1]] * 2 + [[0.0, 2.0]] * 2)
    found = by_rule("flame", rows_NP, frame=named(rows_NP), noise=0.0)
    assert set(found.left_out) == {"6", "7"}
    assert float(found.row_P[0]) == pytest.approx(2.0, abs=0.01) and abs(float(found.row_P[1])) < 1e-12


def test_noise_of_flame_has_the_size_asked_for_and_is_drawn_anew_in_each_round():
    rows_NP = torch.ones(5, 20_000, dtype=torch.float64)
    length = 20_000**0.5
    first, second = (by_rule("flame", rows_NP, frame=bare(20_000, round=k), noise=0.01).row_P - 1 for k in (0, 1))
    assert float(first.std()) == pytest.approx(0.01 * length, rel=0.03)
    assert abs(float((first * second).mean())) < 0.05 * float(first.var())


# ----------------------------------------------------------------------------------------------------------- limits


@cases
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("trimmed_mean", {"beta": 0}),
        ("multi_krum", {"f": 0}),
        ("multi_krum", {"f": 1, "m": 9}),
        ("bulyan", {"f": 0}),
        ("dnc", {"f": 0}),
        ("oracle_removal", {}),
    ],
)
def test_a_rule_that_drops_nothing_is_the_mean(name, settings, case):
    rows_NP, weight_N = drawn(case, least=9, most=9)
    agree(by_rule(name, rows_NP, weight_N, **settings), oracles.weighted_mean(rows_NP.tolist(), weight_N.tolist()))


@cases
def test_trimmed_mean_as_published_of_three_rows_is_the_median(case):
    rows_NP, _ = drawn(case, least=3, most=3)
    agree(by_rule("trimmed_mean_as_published", rows_NP), by_rule("median_as_published", rows_NP).row_P)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("n_rows", [1, 2, 3])
def test_rules_as_published_run_anywhere(name, n_rows):
    found = by_rule(name, torch.randn(n_rows, 6, generator=rng.generator(name)))
    assert found.row_P.shape == (6,) and bool(torch.isfinite(found.row_P).all())


def test_the_rules_that_run_outside_their_theorem_are_those_named_so():
    assert [name for name in names(Aggregator) if name.endswith("_as_published")] == PUBLISHED


@pytest.mark.parametrize(
    ("name", "settings", "least"),
    [
        ("krum", {}, 5),
        ("krum", {"f": 3}, 9),
        ("krum", {"estimate": True}, 3),
        ("multi_krum", {"f": 2}, 7),
        ("multi_krum", {"f": 1, "m": 8}, 8),
        ("bulyan", {}, 7),
        ("bulyan", {"f": 2}, 11),
        ("trimmed_mean", {"beta": 2}, 5),
        ("dnc", {"f": 2}, 5),
        ("dnc", {"f": 2, "c": 3.0}, 7),
        ("residual", {}, 4),
        ("flame", {}, 3),
    ],
)
def test_fewer_rows_than_the_theorem_needs_are_refused_with_the_numbers(name, settings, least):
    by_rule(name, torch.randn(least, 4, generator=rng.generator(name)), **settings)
    with pytest.raises(
        ConfigError, match=rf"'{name}' with these settings needs {least} rows in a round, found {least - 1}"
    ):
        by_rule(name, torch.zeros(least - 1, 4), **settings)


def test_a_run_whose_rounds_are_too_small_is_refused_before_it_starts():
    run = read_run(numbers.TABLE | {"clients_per_round": 3, "aggregator": {"name": "krum", "f": 1}})
    with pytest.raises(ConfigError, match=r"'krum' with these settings needs 5 rows in a round, found 3"):
        prepare(run)


# -------------------------------------------------------------------------------------------- how many are dropped


@pytest.mark.parametrize(
    ("scores", "most", "found"),
    [
        ([1.0, 1.1, 1.2, 1.3, 9.0], 2, 1),
        ([1.0, 1.1, 1.2, 8.0, 9.0], 2, 2),
        ([1.0, 1.1, 8.0, 9.0, 9.1], 2, 2),  # the gap below the median is not looked at
        ([1.0, 1.1, 1.2, 8.0, 9.0], 1, 0),
        ([2.0] * 5, 2, 0),
        ([0.0] * 4 + [1.0], 2, 1),
    ],
)
def test_as_many_are_suspects_as_lie_above_the_largest_gap_that_the_theorem_allows(scores, most, found):
    assert above_the_gap(torch.tensor(scores), most) == found


@pytest.mark.parametrize("name", ["multi_krum", "bulyan", "dnc"])
@pytest.mark.parametrize("bad", [1, 2])
def test_an_estimate_finds_rows_that_lie_far_out_and_tells_how_many(name, bad):
    rows_NP = torch.randn(12, 40, generator=rng.generator(name, bad), dtype=torch.float64)
    rows_NP[:bad] += 20.0
    found = by_rule(name, rows_NP, frame=named(rows_NP), estimate=True)
    assert found.measures == {"f": float(bad)}
    assert {str(k) for k in range(bad)} <= set(found.left_out)
    if name != "bulyan":
        assert set(found.left_out) == {str(k) for k in range(bad)}


def test_f_is_told_only_where_it_is_estimated():
    assert by_rule("multi_krum", torch.randn(7, 4, generator=rng.generator("told"))).measures == {}


def test_one_row_far_out_is_dropped_by_dnc_of_all_numbers():
    rows_NP, _ = drawn(3)
    rows_NP[4] = 1e6
    assert set(by_rule("dnc", rows_NP, frame=named(rows_NP), coordinates=0).left_out) == {"4"}


# ------------------------------------------------------------------------------------------------- what is told


@pytest.mark.parametrize("name", [name for name in UNSEEING if name not in ("mean", "lora_svd", "lora_stack")])
def test_shares_sum_to_one_and_rows_left_out_have_none(name):
    rows_NP, weight_N = drawn(2)
    found = by_rule(name, rows_NP, weight_N, named(rows_NP))
    shares = {client: told[SHARE] for client, told in found.scores.items() if SHARE in told}
    assert not shares or sum(shares.values()) == pytest.approx(1.0)
    assert all(share >= 0 for share in shares.values())
    assert all(shares.get(client, 0.0) == 0.0 for client in found.left_out)


# ------------------------------------------------------------------------------------------- distances of products


def factored(case, dtype=torch.float64):
    """A frame of two layers of rank 3 and a tensor that is no factor, and rows of seven clients."""
    shapes = {"x.lora_A": (3, 8), "x.lora_B": (5, 3), "norm": (4,), "y.lora_A": (3, 6), "y.lora_B": (7, 3)}
    layout = Layout(tuple(("delta", name, shape) for name, shape in shapes.items()))
    draws = rng.generator("factored", case)
    anchor_P, rows_NP = (torch.randn(k, layout.size, generator=draws, dtype=torch.float64) for k in (1, 7))
    return rows_NP.to(dtype), Frame(layout, anchor_P[0].to(dtype))


def regauged(rows_NP, frame, index, case):
    """The rows with one client's factors (A, B) written as (R A, B R^-1)."""
    rows_NP = rows_NP.clone()
    row, anchor = (frame.layout.slots(values)["delta"] for values in (rows_NP[index], frame.anchor_P))
    for layer in ("x", "y"):
        gauge = torch.randn(3, 3, generator=rng.generator("gauge", layer, case), dtype=torch.float64) + 2 * torch.eye(3)
        gauge = gauge.to(rows_NP.dtype)
        a, b = (row[f"{layer}.lora_{end}"] + anchor[f"{layer}.lora_{end}"] for end in "AB")
        row[f"{layer}.lora_A"].copy_(gauge @ a - anchor[f"{layer}.lora_A"])
        row[f"{layer}.lora_B"].copy_(b @ torch.linalg.inv(gauge) - anchor[f"{layer}.lora_B"])
    return rows_NP


def product_distances(rows_NP, frame):
    return squared_distances(gram_of("product", rows_NP, frame)).sqrt()


@cases
def test_another_gauge_of_one_client_leaves_distances_of_products_as_they_are(case):
    rows_NP, frame = factored(case)
    found_NN = product_distances(regauged(rows_NP, frame, case % 7, case), frame)
    torch.testing.assert_close(found_NN, product_distances(rows_NP, frame), rtol=1e-5, atol=0)


def test_another_gauge_changes_the_distances_of_rows():
    rows_NP, frame = factored(0)
    before_NN, after_NN = (squared_distances(gram(values)) for values in (rows_NP, regauged(rows_NP, frame, 0, 0)))
    assert not torch.allclose(before_NN, after_NN, rtol=0.05)


@cases
def test_distances_of_products_are_those_of_the_dense_products_and_other_numbers(case):
    rows_NP, frame = factored(case)
    slots = frame.layout.slots(rows_NP + frame.anchor_P)["delta"]
    dense = [[(slots[f"{x}.lora_B"][i], slots[f"{x}.lora_A"][i]) for x in "xy"] for i in range(7)]
    for i in range(7):
        for j in range(i):
            other = float((slots["norm"][i] - slots["norm"][j]).norm())
            wanted = (oracles.low_rank_distance(dense[i], dense[j]) ** 2 + other**2) ** 0.5
            assert float(product_distances(rows_NP, frame)[i, j]) == pytest.approx(wanted, rel=1e-9)


def test_a_client_that_changed_nothing_has_no_length_in_products():
    rows_NP, frame = factored(1)
    rows_NP[2] = 0
    assert float(gram_of("product", rows_NP, frame)[2, 2]) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", ["krum", "multi_krum", "bulyan", "dnc"])
@cases
def test_a_rule_on_products_chooses_the_same_clients_in_another_gauge(name, case):
    rows_NP, frame = factored(case)
    frame = replace(frame, clients=tuple("abcdefg"))
    settings = {"of": "product"} | ({"coordinates": 0} if name == "dnc" else {})
    told = [
        by_rule(name, values, frame=frame, **settings).left_out
        for values in (rows_NP, regauged(rows_NP, frame, case % 7, case))
    ]
    assert told[0] == told[1]


def test_products_of_rows_without_factors_are_refused_before_the_first_step():
    with pytest.raises(ConfigError, match=r"^aggregator\.of: found 'product', for these rows use 'row'\."):
        rule("krum", of="product").accumulator(bare(4))


def test_products_of_drawn_numbers_are_refused():
    with pytest.raises(ConfigError, match=r"^aggregator\.coordinates: found 10000 with of = 'product'"):
        rule("dnc", of="product")


# ------------------------------------------------------------------------------------------------- inner products


@pytest.mark.parametrize("size", [1, 100, (1 << 14) - 1, 1 << 14, 3 * (1 << 14) + 5])
def test_inner_products_of_float32_rows_are_those_of_float64_rows(size):
    rows_NP = torch.randn(6, size, generator=rng.generator("gram", size))
    exact_NN = rows_NP.double() @ rows_NP.double().T
    scale = float(exact_NN.diagonal().max())
    torch.testing.assert_close(gram(rows_NP), exact_NN, rtol=0, atol=1e-6 * scale)
    torch.testing.assert_close(gram(list(rows_NP)), gram(rows_NP), rtol=0, atol=1e-6 * scale)
    torch.testing.assert_close(gram(rows_NP, exact=True), exact_NN, rtol=1e-12, atol=1e-12 * scale)
    torch.testing.assert_close(norms(rows_NP), exact_NN.diagonal().sqrt(), rtol=1e-6, atol=0)


def test_inner_products_whose_squares_are_beyond_float32_are_finite():
    rows_NP = torch.tensor([[1e30, 0.0], [1.0, 2.0]])
    assert gram(rows_NP).tolist() == [[pytest.approx(1e60), pytest.approx(1e30)], [pytest.approx(1e30), 5.0]]
    assert norms(rows_NP).tolist() == pytest.approx([1e30, 5**0.5])


@pytest.mark.parametrize("name", ["krum", "multi_krum", "bulyan", "geometric_median", "norm_clip", "median"])
def test_a_row_as_long_as_float32_holds_does_not_move_the_aggregate(name):
    rows_NP = torch.randn(9, 50, generator=rng.generator("huge"))
    rows_NP[3] = 1e30
    found_P = rule(name)(rows_NP, torch.full((9,), 1 / 9), bare(50))
    assert float(found_P.norm()) < 20


def test_cosines_beside_a_row_of_zeros_are_nan():
    assert torch.isnan(cosines(gram(torch.tensor([[0.0, 0.0], [1.0, 2.0]])))[0]).all()


def test_a_score_does_not_count_the_distance_of_a_row_from_itself():
    distance_NN = torch.tensor([[0.0, 2.0, 3.0], [2.0, 0.0, 4.0], [3.0, 4.0, 0.0]])
    assert krum_scores(distance_NN, 1).tolist() == [2.0, 2.0, 3.0]


@pytest.mark.parametrize("n_rows", [1, 2, 3, 50])
@pytest.mark.parametrize("size", [1, 63, 64, 4099])
def test_blocks_of_columns_cover_every_number(n_rows, size):
    rows_NP = torch.randn(n_rows, size, generator=rng.generator("blocks", n_rows, size))
    torch.testing.assert_close(by_column(rows_NP, middle), rows_NP.quantile(0.5, dim=0))
    some = list(range(0, n_rows, 2))
    torch.testing.assert_close(by_column(rows_NP, middle, chosen=some), rows_NP[some].quantile(0.5, dim=0))


@pytest.mark.parametrize("name", ["median", "krum", "bulyan", "geometric_median", "residual", "foolsgold"])
def test_rows_in_a_file_have_the_same_aggregate(name):
    rows_NP = torch.randn(8, 300, generator=rng.generator("file"))
    found = []
    for limit_bytes in (1, 1 << 30):
        total = rule(name, limit_bytes=limit_bytes).accumulator(bare(300))
        for index, row_P in enumerate(rows_NP):
            total.add(row_P, 1.0, str(index))
        found.append(total.result().row_P)
    assert torch.equal(*found)


# ---------------------------------------------------------------------------------------------- who is an attacker


def test_attackers_are_a_number_or_a_share_of_the_clients_in_their_order():
    population = [f"c{k}" for k in range(10)]
    for clients, count in ((1, 1), (3, 3), (3.0, 3), (0.3, 3), (0.25, 3), (0.01, 1), (0.999, 10)):
        found = drawn_attackers(population, clients, 7)
        assert len(found) == count and list(found) == [name for name in population if name in found]


def test_attackers_do_not_depend_on_the_order_of_the_clients_but_on_the_seed():
    population = [f"c{k}" for k in range(20)]
    assert set(drawn_attackers(population, 5, 1)) == set(drawn_attackers(population[::-1], 5, 1))
    assert len({drawn_attackers(population, 5, seed) for seed in range(20)}) > 15


def test_every_client_is_drawn_about_as_often():
    population = [f"c{k}" for k in range(10)]
    drawn_ = [name for seed in range(2000) for name in drawn_attackers(population, 3, seed)]
    assert all(abs(drawn_.count(name) - 600) < 90 for name in population)


@pytest.mark.parametrize(
    ("clients", "text"),
    [
        (2.5, "found 2.5 attackers; allowed is a whole number"),
        (0, "found 0 attackers; allowed"),
        (-1, "found -1 attackers; allowed"),
        (5, "found 5 attackers among 4 clients: ask for no more of them"),
    ],
)
def test_odd_numbers_of_attackers_are_refused(clients, text):
    with pytest.raises(ConfigError, match=text):
        drawn_attackers(["a", "b", "c", "d"], clients, 0)


def test_oracle_removal_drops_the_drawn_attackers_alone():
    rows_NP, weight_N = drawn(4)
    frame = named(rows_NP)
    found = by_rule("oracle_removal", rows_NP, weight_N, frame, clients=0.3, seed=11)
    bad = drawn_attackers(frame.population, 0.3, 11)
    assert set(found.left_out) == set(bad)
    good = [k for k in range(len(rows_NP)) if str(k) not in bad]
    agree(found, oracles.weighted_mean(rows_NP[good].tolist(), weight_N[good].tolist()))


def test_oracle_removal_of_a_round_of_attackers_is_a_row_of_zeros():
    rows_NP = torch.ones(2, 3)
    population = tuple("abcde")
    bad = drawn_attackers(population, 2, 3)
    frame = bare(3, clients=bad, population=population)
    found = by_rule("oracle_removal", rows_NP, frame=frame, clients=2, seed=3)
    assert found.row_P.tolist() == [0.0] * 3 and set(found.left_out) == set(bad)


def test_half_an_attacker_is_refused_in_the_settings():
    with pytest.raises(ConfigError, match=r"^aggregator\.clients: found 1\.5, from 1 on allowed is a whole number\.$"):
        rule("oracle_removal", clients=1.5)


# -------------------------------------------------------------------------------------------------------------- runs


def table(name, **settings):
    many = {"data": {"name": "points", "n_clients": 8}, "rounds": 2}
    return numbers.TABLE | many | {"clients_per_round": 7, "aggregator": {"name": name, **settings}}


@pytest.mark.parametrize("name", [name for name in UNSEEING if name not in ("lora_svd", "lora_stack")])
def test_two_rounds_with_every_rule(name, tmp_path):
    list(api.start(read_run(table(name)), tmp_path / "run"))
    assert RunDirectory.open(tmp_path / "run").complete


@pytest.mark.parametrize("name", ["krum", "multi_krum", "bulyan", "dnc"])
def test_an_estimate_stands_in_the_record_of_every_round(name, tmp_path):
    list(api.start(read_run(table(name, estimate=True)), tmp_path / "run"))
    told = [line for line in logs(tmp_path / "run")["metrics.jsonl"] if line["name"] == "aggregator_f"]
    assert len(told) == 2


def test_foolsgold_remembers_over_a_stop(tmp_path):
    run = read_run(table("foolsgold") | {"clients_per_round": 3, "rounds": 4})
    unbroken, stopped = unbroken_and_stopped(run, tmp_path, after=4)
    assert logs(stopped) == logs(unbroken)
    last, other = (sorted((folder / "checkpoints").iterdir())[-2] for folder in (unbroken, stopped))
    assert (last / "history.safetensors").read_bytes() == (other / "history.safetensors").read_bytes()
