"""The Skellam mechanism: its law on the sum, its cost, the run that uses it, and what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedloom.base import rng
from fedloom.base.errors import ConfigError
from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Aggregator, Frame, PrivacyBudget
from fedloom.contracts.messages import Earlier, WholeSum
from fedloom.federated.aggregators.secure_sum import as_numbers
from fedloom.federated.privacy.skellam import Skellam
from fedloom.runs.accounts import spent_text, stated_privacy
from fedloom.runs.directory import RunDirectory
from fedloom.runs.execute import execute, run_files
from fedloom.runs.prepared import prepare
from support.resuming import adapters, run_to_the_end, unbroken_and_stopped
from support.small_runs import small_run, train

WHOLE = WholeSum(numbers=300, clients=6, least=4, bits=12, clip=1.0, norm=0.5)
PRIVATE = {
    "aggregator": {"name": "secure_sum", "clip": 1.0, "norm": 0.5, "bits": 12, "colluding": 0.0},
    "privacy": {"name": "skellam", "epsilon": 4.0, "delta": 1e-5},
    "weighting": "uniform",
}


def rule(**settings):
    table = {"clip": 1.0, "norm": 0.5, "bits": 12, "colluding": 0.1} | settings
    return lookup(Aggregator, "secure_sum")(**table)


def reach(whole):
    """The largest norm of a row in steps, by hand: that of the row, and half a step for each number."""
    return whole.norm / (whole.clip / 2**whole.bits) + math.sqrt(whole.numbers) / 2


def budget_of(multiplier=1.0, whole=WHOLE):
    return PrivacyBudget(1.0, multiplier, 1e-5, 100, whole)


def packet(row_P, budget, *whose, noise="seeded"):
    side = Skellam(noise=noise).client_side(budget, whose, {}, 0)
    return side.summand(rule().summand(row_P, 1.0))


def drawn_rows(count):
    rows_NP = torch.randn(count, WHOLE.numbers, generator=rng.generator("skellam rows"))
    return 0.4 * rows_NP / rows_NP.norm(dim=1, keepdim=True)


def mean_of(packets):
    accumulator = rule().accumulator(Frame(Layout((("delta", "w", (WHOLE.numbers,)),)), torch.zeros(WHOLE.numbers)))
    for one in packets:
        accumulator.add_sum(one, 1)
    return accumulator.result().row_P


@pytest.mark.parametrize("survivors", [4, 6])
def test_noise_on_the_sum_has_at_least_the_variance_that_is_accounted_for(survivors):
    """Over 200 rounds; whoever more than the fewest comes adds more than was asked for."""
    rows_NP, budget = drawn_rows(survivors), budget_of()
    plain_P = mean_of([rule().summand(row_P, 1.0) for row_P in rows_NP])
    noise_RP = torch.stack(
        [
            survivors * (mean_of([packet(row_P, budget, r, n) for n, row_P in enumerate(rows_NP)]) - plain_P)
            for r in range(200)
        ]
    )
    asked = reach(WHOLE) * WHOLE.clip / 2**WHOLE.bits
    assert Skellam().spread(budget, {}, 1.0) == pytest.approx(asked, rel=1e-9)
    assert float(noise_RP.var()) == pytest.approx(asked**2 * survivors / WHOLE.least, rel=0.03)
    assert float(noise_RP.mean()) == pytest.approx(0, abs=5 * asked / math.sqrt(200 * WHOLE.numbers) * 2)


def test_without_its_noise_a_row_is_that_of_the_rule():
    from fedloom.secure_sum.skellam import named_bits, skellam

    row_P = drawn_rows(1)[0]
    noisy = as_numbers(packet(row_P, budget_of(), "stream", 3, "north")).astype(np.int64)
    bits = named_bits("skellam", "stream", 3, "north")
    noise = skellam(reach(WHOLE) ** 2 * (1 + 1e-12) / WHOLE.least, WHOLE.numbers, bits)
    bare = as_numbers(rule().summand(row_P, 1.0))
    assert np.abs((noisy - noise - bare.astype(np.int64)).astype(np.uint32).astype(np.int32)).max() <= 1
    assert (noise != 0).mean() > 0.9


def test_noise_of_the_system_is_drawn_anew_and_named_noise_is_the_same():
    row_P = drawn_rows(1)[0]
    system = [packet(row_P, budget_of(), "a", noise="system") for _ in range(2)]
    assert not torch.equal(*system)
    assert torch.equal(packet(row_P, budget_of(), "a"), packet(row_P, budget_of(), "a"))
    assert not torch.equal(packet(row_P, budget_of(), "a"), packet(row_P, budget_of(), "b"))


def rdp_by_hand(order, whole, multiplier):
    """Theorem 3.5 of the paper, with the variance (z D2)^2 and D1 <= min(sqrt(S) D2, D2^2)."""
    far, variance = reach(whole), (multiplier * reach(whole)) ** 2
    absolute = min(math.sqrt(whole.numbers) * far, far**2)
    more = min(((2 * order - 1) * far**2 + 6 * absolute) / (4 * variance**2), 3 * absolute / (2 * variance))
    return order * far**2 / (2 * variance) + more


def epsilon_by_hand(whole, multiplier, rounds, delta):
    return min(
        rounds * rdp_by_hand(order, whole, multiplier)
        + math.log1p(-1 / order)
        - (math.log(0.99 * delta) + math.log(order)) / (order - 1)
        for order in range(2, 1024)
    )


@pytest.mark.parametrize(("multiplier", "rounds"), [(2.0, 1), (5.0, 30), (20.0, 100)])
def test_epsilon_is_that_of_the_theorem(multiplier, rounds):
    found = Skellam().spent(budget_of(multiplier), rounds)["rdp"]
    assert found == pytest.approx(epsilon_by_hand(WHOLE, multiplier, rounds, 1e-5), rel=1e-3)


def test_calibrated_noise_costs_what_was_asked_for():
    mechanism = Skellam(epsilon=3.0, delta=1e-6)
    budget = mechanism.budget(population=50, expected=6, uses=20, of_sum=WHOLE)
    assert (budget.max_uses, budget.delta, budget.of_sum) == (20, 1e-6, WHOLE)
    assert 2.97 < mechanism.spent(budget, 20)["rdp"] <= 3.0
    assert mechanism.spent(budget, 0)["rdp"] == 0


def test_given_noise_lasts_for_as_many_rounds_as_epsilon_pays():
    mechanism = Skellam(epsilon=3.0, delta=1e-6, noise_multiplier=8.0)
    budget = mechanism.budget(population=50, expected=6, uses=20, of_sum=WHOLE)
    assert mechanism.spent(budget, budget.max_uses)["rdp"] <= 3.0 < mechanism.spent(budget, budget.max_uses + 1)["rdp"]
    endless = replace(mechanism, epsilon=0.0)
    assert endless.budget(population=50, expected=6, uses=20, of_sum=WHOLE).max_uses > 10**9


def test_weights_that_have_spent_before_bound_nothing():
    earlier = Earlier(unit="client", rate=1.0, noise_multiplier=1.0, uses=1)
    assert Skellam().spent(budget_of(), 1, [earlier]) == {"rdp": math.inf}


# ------------------------------------------------------------------------------------------------------------ in a run


def test_a_run_states_what_it_has_spent(tmp_path):
    run = small_run(tmp_path, **PRIVATE)
    run_to_the_end(run, tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    card = stated_privacy(directory, read_table(tmp_path / "run"))
    assert (card["unit"], card["mechanism"], card["uses"], card["guards"]) == ("client_sum", "skellam", 3, 4)
    assert 3.9 < card["epsilon"]["rdp"] <= 4.0 and "(rdp)" in spent_text(card)
    lines = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    account = [line for line in lines if "epsilon" in line][-1]
    whole = WholeSum(**account["of_sum"])
    assert (whole.clients, whole.least) == (4, 4)
    assert account["epsilon"]["rdp"] == pytest.approx(
        epsilon_by_hand(whole, account["noise_multiplier"], 3, 1e-5), rel=1e-3
    )
    assert {line["bytes"] for line in lines if line.get("bytes")} == {4 * whole.numbers}


def read_table(folder):
    import tomllib

    return tomllib.loads((folder / "run.toml").read_text())


def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path):
    unbroken, stopped = unbroken_and_stopped(small_run(tmp_path, **PRIVATE), tmp_path, after=2)
    assert adapters(unbroken) == adapters(stopped) and adapters(unbroken)


def test_a_budget_that_is_spent_ends_the_run(tmp_path):
    given = PRIVATE | {"privacy": {"name": "skellam", "epsilon": 4.0, "delta": 1e-5, "noise_multiplier": 2.4}}
    run = small_run(tmp_path, rounds=30, **given)
    allowed = prepare(run).stages[0].plan.budgets["client0"].max_uses
    run_to_the_end(run, tmp_path / "run")
    rounds = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert 0 < allowed < 30 and max(line["round"] for line in rounds if "round" in line) + 1 in (allowed, allowed + 1)


def test_much_less_noise_than_the_rows_is_nearly_the_sum_without(tmp_path):
    """The limit: with a thousandth of the reach as noise, parameters differ by about that."""
    same = PRIVATE | {"evaluation": {"holdout_by": "text", "metrics": []}}
    little = {"name": "skellam", "epsilon": 0.0, "noise_multiplier": 1e-3, "delta": 1e-5}
    bare, noisy, loud = (
        train(small_run(tmp_path, **same | {"privacy": privacy}), rounds=1)[0]
        for privacy in ({"name": "none"}, little, PRIVATE["privacy"])
    )
    near, far = (float((one.params_P - bare.params_P).abs().max()) for one in (noisy, loud))
    assert 0 < near < 1e-3 < far


def test_a_client_that_is_absent_leaves_enough_noise(tmp_path):
    """Noise is calibrated on the fewest rows that are allowed, so that an absent client costs nothing."""
    run = small_run(tmp_path, min_clients=3, **PRIVATE)
    whole = prepare(run).stages[0].plan.budgets["client0"].of_sum
    assert (whole.clients, whole.least) == (4, 3)
    directory = RunDirectory.create(tmp_path / "run", run_files(run, ""))
    list(execute(run, directory, absent={1: {"client2"}}))
    assert stated_privacy(directory, read_table(tmp_path / "run"))["epsilon"]["rdp"] <= 4.0


REFUSED = {
    "another aggregator": ({"aggregator": "mean"}, "unit 'client_sum' has clients add noise to whole numbers"),
    "rows that nothing bounds": (
        {"aggregator": {"name": "secure_sum"}},
        r"aggregator: found norm 0, clip 1 .* allowed are 0 < norm <= clip",
    ),
    "weights in the sum": (
        {"aggregator": PRIVATE["aggregator"] | {"largest_weight": 2.0}},
        "largest_weight 2 beside noise in the sum",
    ),
    "none but colluding ones": (
        {"aggregator": PRIVATE["aggregator"] | {"colluding": 0.9}},
        "aggregator.colluding: found 4 of 4 clients",
    ),
    "more than 32 bits hold": (
        {"aggregator": PRIVATE["aggregator"] | {"bits": 28}},
        "lower the bits, or the clip towards the norm",
    ),
    "a rule that sends more": ({"rule": "scaffold"}, r"unit 'client_sum' bounds one row, but rule 'scaffold' uploads"),
    "weights by size": ({"weighting": "samples"}, "weighting: found 'samples' with privacy"),
    "the default delta of few": ({"privacy": {"name": "skellam"}}, r"privacy.delta: found n\^-1.1"),
    "no noise": (
        {"privacy": {"name": "skellam", "epsilon": 0.0, "delta": 1e-5}},
        "found 0 beside noise_multiplier = 0",
    ),
    "noise that no round can pay": (
        {"privacy": {"name": "skellam", "noise_multiplier": 1e-2, "delta": 1e-5}},
        "with which one round alone costs more than epsilon = 8",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_accountant_could_count_is_refused(tmp_path, case):
    changes, text = REFUSED[case]
    with pytest.raises(ConfigError, match=text):
        prepare(small_run(tmp_path, **(PRIVATE | changes)))


def test_canaries_are_not_planted_into_whole_numbers(tmp_path):
    from fedloom.runs.audit import check_audit

    with pytest.raises(ConfigError, match="audit: found unit 'client_sum'"):
        check_audit(small_run(tmp_path, **PRIVATE), n_canaries=100, noise="kept")
