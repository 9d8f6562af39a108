"""The Gaussian mechanism: limits, closed forms, statistics, misuse, and the adaptive clipping norm."""

import math
import sys

import numpy as np
import pytest
import torch
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from fedloom.base import rng
from fedloom.base.config import build
from fedloom.base.errors import ConfigError, UnknownNameError
from fedloom.contracts.federated import Mechanism, PrivacyBudget
from fedloom.federated.privacy import _accounting as accounting
from fedloom.federated.privacy.gaussian import Gaussian
from fedloom.federated.privacy.none import NoPrivacy

SILENT = PrivacyBudget(0.1, 0.0, 1e-3, 100)
LOUD = PrivacyBudget(0.1, 1.5, 1e-3, 100)
ADAPTIVE = {"clip_quantile": 0.5, "clip_count_noise": 2.0}


def clipped_sum(mechanism, rows_EP, blocks):
    """The clipped sum [P] of contributions whose numbers fall into blocks of the given sizes."""
    parts = rows_EP.split(blocks, dim=1)
    norms_LE = torch.stack([part.norm(dim=1) for part in parts])
    scales_LE = mechanism.scales(norms_LE, mechanism.init())
    return torch.cat([(s_E[:, None] * part).sum(0) for s_E, part in zip(scales_LE, parts, strict=True)])


def draw_rows(n_rows, size):
    return torch.randn(n_rows, size, generator=rng.generator("rows", n_rows, size), dtype=torch.float64)


def release(mechanism, sum_P, *names, budget=LOUD, inside=0.0, total=0, expected=1.0):
    return mechanism.release(
        sum_P,
        inside=inside,
        total=total,
        expected=expected,
        budget=budget,
        state=mechanism.init(),
        noise=mechanism.source(*names),
    )


# ------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("clipping", ["global", "per_matrix"])
def test_no_noise_and_a_vast_clip_are_plain(clipping):
    rows_EP, mechanism = draw_rows(6, 10), Gaussian(clip=1e30, clipping=clipping)
    private_P, _ = release(mechanism, clipped_sum(mechanism, rows_EP, [4, 6]), 0, budget=SILENT, expected=5.0)
    plain_P, _ = NoPrivacy().release(
        clipped_sum(NoPrivacy(), rows_EP, [4, 6]),
        inside=6,
        total=6,
        expected=5.0,
        budget=SILENT,
        state={},
        noise=rng.system_normal,
    )
    assert torch.equal(private_P, plain_P)


def test_one_matrix_clipped_by_itself_is_clipped_globally():
    rows_EP = draw_rows(6, 10)
    one, other = Gaussian(clipping="global"), Gaussian(clipping="per_matrix")
    assert torch.equal(clipped_sum(one, rows_EP, [10]), clipped_sum(other, rows_EP, [10]))


def test_adaptive_norm_that_has_not_moved_clips_as_a_fixed_one():
    rows_EP = draw_rows(6, 10)
    one, other = Gaussian(clip=0.7), Gaussian(clip=0.7, **ADAPTIVE)
    torch.testing.assert_close(
        clipped_sum(one, rows_EP, [4, 6]), clipped_sum(other, rows_EP, [4, 6]), rtol=1e-7, atol=0
    )


def test_defaults_ask_for_epsilon_8_of_every_example():
    assert (Gaussian().epsilon, Gaussian().covers().name) == (8.0, "example")


# ------------------------------------------------------------------------------------------------------- closed forms


def test_global_clip_scales_a_contribution_to_the_clip():
    # Norms 3 and 4 of two blocks make 5, of which 0.5 are allowed.
    scales_LE = Gaussian(clip=0.5).scales(torch.tensor([[3.0], [4.0]]), {})
    assert scales_LE.flatten().tolist() == pytest.approx([0.1, 0.1])


def test_clip_per_matrix_scales_each_block_to_its_share():
    # Four blocks share a clip of 1: each may have a norm of 1/2.
    scales_LE = Gaussian(clipping="per_matrix").scales(torch.tensor([[2.0], [0.1], [0.5], [5.0]]), {})
    assert scales_LE.flatten().tolist() == pytest.approx([0.25, 1, 1, 0.1])


@pytest.mark.parametrize("clipping", ["global", "per_matrix"])
def test_no_clipped_contribution_exceeds_the_clip(clipping):
    mechanism = Gaussian(clip=0.3, clipping=clipping)
    rows_EP = draw_rows(50, 12) * torch.logspace(-3, 3, 50, dtype=torch.float64)[:, None]
    norms_E = torch.stack([clipped_sum(mechanism, row_P[None], [2, 3, 7]).norm() for row_P in rows_EP])
    assert float(norms_E.max()) <= 0.3 * (1 + 1e-9)


def test_release_divides_by_the_expected_number_whatever_came():
    released_P, _ = release(Gaussian(), torch.full((3,), 6.0), 0, budget=SILENT, total=2, expected=4.0)
    assert released_P.tolist() == [1.5, 1.5, 1.5]


def test_release_adds_the_noise_to_the_sum():
    released_P, _ = release(Gaussian(clip=0.2), torch.full((3,), 6.0, dtype=torch.float64), 0, "a", expected=4.0)
    noise_P = Gaussian().source(0, "a")(3).double()
    torch.testing.assert_close(released_P, (6 + 1.5 * 0.2 * noise_P) / 4)


def test_rate_is_expected_over_population():
    assert Gaussian(delta=1e-3).budget(population=500, expected=5, uses=3).rate == 0.01


def test_rate_of_a_client_smaller_than_the_batch_is_one():
    assert Gaussian(delta=1e-3).budget(population=3, expected=16, uses=3).rate == 1


def test_local_noise_is_not_amplified_by_sampling():
    assert Gaussian(unit="client_local", delta=1e-3).budget(population=100, expected=5, uses=3).rate == 1


def test_default_delta_is_n_to_the_minus_1_1():
    assert Gaussian().budget(population=534, expected=5, uses=3).delta == 534**-1.1


def test_default_delta_above_a_thousandth_has_to_be_asked_for():
    with pytest.raises(
        ConfigError, match=r"n\^-1\.1 = 0\.001001, the default, for 533 records.*smaller one, for instance 2e-04"
    ):
        Gaussian().budget(population=533, expected=5, uses=3)


def test_delta_that_is_set_is_kept():
    assert Gaussian(delta=1e-5).budget(population=500, expected=5, uses=3).delta == 1e-5


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
@pytest.mark.parametrize("unit", ["example", "client", "client_local"])
def test_all_planned_uses_keep_to_the_budget(accountant, unit):
    mechanism = Gaussian(epsilon=2, accountant=accountant, unit=unit, delta=1e-3)
    budget = mechanism.budget(population=100, expected=5, uses=40)
    assert 1.98 < mechanism.spent(budget, 40)[accountant] <= 2


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_accountant_that_counts_comes_first(accountant):
    assert next(iter(Gaussian(accountant=accountant).spent(LOUD, 3))) == accountant


def test_both_accountants_are_reported():
    assert set(Gaussian().spent(LOUD, 3)) == {"pld", "rdp"}


def test_budget_for_25_steps_allows_25():
    mechanism = Gaussian(noise_multiplier=1.0)
    budget = mechanism.spent(PrivacyBudget(0.1, 1.0, 1e-3, 0), 25)["pld"] + 1e-9
    budget = Gaussian(noise_multiplier=1.0, epsilon=budget, delta=1e-3).budget(population=100, expected=10, uses=40)
    assert budget.max_uses == 25


def test_calibrated_budget_for_25_steps_allows_25():
    assert Gaussian(epsilon=3, delta=1e-3).budget(population=100, expected=10, uses=25).max_uses == 25


def test_use_beyond_the_budget_would_pass_it():
    mechanism = Gaussian(epsilon=3, delta=1e-3)
    budget = mechanism.budget(population=100, expected=10, uses=25)
    assert mechanism.spent(budget, budget.max_uses + 1)["pld"] > 3


def test_multiplier_without_epsilon_never_stops():
    assert (
        Gaussian(noise_multiplier=1.0, epsilon=0, delta=1e-3).budget(population=100, expected=10, uses=5).max_uses
        == sys.maxsize
    )


def test_multiplier_that_is_set_is_kept():
    assert (
        Gaussian(noise_multiplier=1.3, delta=1e-3).budget(population=100, expected=10, uses=5).noise_multiplier == 1.3
    )


def test_two_rounds_of_10_steps_cost_what_20_cost_by_rdp():
    # The library composes two rounds; the mechanism is asked for the count that a ledger carries over.
    rounds = RdpAccountant(accounting.ORDERS)
    for _ in range(2):
        rounds.compose(PoissonSampledDpEvent(0.1, GaussianDpEvent(1.5)), 10)
    assert Gaussian().spent(LOUD, 10 + 10)["rdp"] == pytest.approx(rounds.get_epsilon(1e-3), rel=1e-9)


def test_two_rounds_of_10_steps_cost_what_20_cost_by_pld():
    rounds = PLDAccountant(value_discretization_interval=1e-3)
    for _ in range(2):
        rounds.compose(PoissonSampledDpEvent(0.1, GaussianDpEvent(1.5)), 10)
    assert Gaussian().spent(LOUD, 10 + 10)["pld"] == pytest.approx(rounds.get_epsilon(1e-3), rel=2e-3)


def test_local_row_costs_what_half_its_noise_costs_centrally():
    # A row can be replaced by its opposite, which is twice the clip away.
    local = Gaussian(unit="client_local").spent(PrivacyBudget(1.0, 4.0, 1e-3, 9), 3)
    assert local == Gaussian(unit="client").spent(PrivacyBudget(1.0, 2.0, 1e-3, 9), 3)


# --------------------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("noise", ["seeded", "system"])
def test_noise_has_the_stated_deviation(noise):
    released_P, _ = release(Gaussian(clip=0.2, noise=noise), torch.zeros(100_000), 0, "noise", expected=5.0)
    assert float(released_P.std()) * 5 == pytest.approx(1.5 * 0.2, rel=0.02)


@pytest.mark.parametrize("noise", ["seeded", "system"])
def test_noise_has_mean_zero(noise):
    found_P = Gaussian(noise=noise).source(0, "noise")(100_000)
    assert abs(float(found_P.mean())) < 5 / math.sqrt(100_000)


@pytest.mark.parametrize("noise", ["seeded", "system"])
def test_noise_has_the_quantiles_of_a_normal(noise):
    found = np.quantile(Gaussian(noise=noise).source(0, "noise")(100_000).numpy(), [0.001, 0.1587, 0.5, 0.8413, 0.999])
    assert found == pytest.approx([-3.09, -1, 0, 1, 3.09], abs=0.12)


@pytest.mark.parametrize("noise", ["seeded", "system"])
def test_neighbouring_numbers_of_noise_are_uncorrelated(noise):
    found = Gaussian(noise=noise).source(0, "noise")(100_000).numpy()
    halves = found[:50_000], found[50_000:]
    assert max(abs(np.corrcoef(found[1:], found[:-1])[0, 1]), abs(np.corrcoef(*halves)[0, 1])) < 5 / math.sqrt(50_000)


@pytest.mark.parametrize(
    "other",
    [(0, "noise", 1, "anna", 0), (0, "noise", 0, "ben", 0), (0, "noise", 0, "anna", 1), (1, "noise", 0, "anna", 0)],
)
def test_noise_of_another_round_client_step_or_run_is_fresh(other):
    source = Gaussian().source
    assert not torch.equal(source(0, "noise", 0, "anna", 0)(8), source(*other)(8))


def test_same_names_repeat_the_noise():
    assert torch.equal(Gaussian().source(0, "noise", 3)(8), Gaussian().source(0, "noise", 3)(8))


def test_noise_drawn_twice_from_one_source_is_fresh():
    source = Gaussian().source(0, "noise", 3)
    assert not torch.equal(source(8), source(8))


def test_seeded_noise_ignores_the_global_generator():
    torch.random.manual_seed(1)
    one = Gaussian().source(0, "noise")(8)
    torch.random.manual_seed(2)
    assert torch.equal(one, Gaussian().source(0, "noise")(8))


def test_noise_of_the_system_never_repeats():
    source = Gaussian(noise="system").source
    assert not torch.equal(source(0, "noise")(8), source(0, "noise")(8))


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("noise", ["seeded", "system"])
def test_noise_comes_in_the_number_asked_for(count, noise):
    found = Gaussian(noise=noise).source(0)(count)
    assert (found.shape, found.dtype) == ((count,), torch.float32)


def test_noise_of_the_system_is_finite_at_the_ends_of_the_bits(monkeypatch):
    monkeypatch.setattr(rng.os, "urandom", lambda count: b"\x00" * (count // 2) + b"\xff" * (count // 2))
    assert bool(rng.system_normal(9).isfinite().all())


# ------------------------------------------------------------------------------------------------------ adaptive norm


def test_adaptive_norm_starts_at_the_clip():
    assert float(Gaussian(clip=0.25, **ADAPTIVE).init()["clip"]) == 0.25


def test_fixed_norm_keeps_nothing():
    assert Gaussian().init() == {}


@pytest.mark.parametrize(("inside", "share"), [(0, 0), (4, 0.5), (8, 1)])
def test_adaptive_norm_follows_the_share_inside(inside, share):
    # As many came as were expected, and the count is exact: C exp(-0.2 (share - 0.5)).
    mechanism = Gaussian(clip=2.0, clip_quantile=0.5, clip_count_noise=1e-9)
    _, kept = release(mechanism, torch.zeros(3), 0, budget=SILENT, inside=inside, total=8, expected=8.0)
    assert float(kept["clip"]) == pytest.approx(2 * math.exp(-0.2 * (share - 0.5)), rel=1e-6)


def test_adaptive_norm_stays_at_half_inside_when_nobody_comes():
    mechanism = Gaussian(clip=2.0, clip_quantile=0.5, clip_count_noise=1e-9)
    _, kept = release(mechanism, torch.zeros(3), 0, budget=SILENT, inside=0, total=0, expected=8.0)
    assert float(kept["clip"]) == pytest.approx(2.0, rel=1e-6)


def test_adaptive_norm_clips_the_next_contributions():
    mechanism = Gaussian(clip=2.0, **ADAPTIVE)
    assert float(mechanism.scales(torch.tensor([[1.0]]), {"clip": torch.tensor(0.5)})) == 0.5


def test_adaptive_norm_may_differ_from_contribution_to_contribution():
    kept = {"clip": torch.tensor([0.5, 2.0])}
    assert Gaussian(**ADAPTIVE).scales(torch.tensor([[1.0, 4.0]]), kept).tolist() == [[0.5, 0.5]]


def test_adaptive_norm_converges_to_the_quantile():
    mechanism = Gaussian(clip=0.05, clip_quantile=0.3, clip_count_noise=5.0)
    norms_E = draw_rows(1, 400).abs().flatten()
    kept = mechanism.init()
    for turn in range(400):
        inside = float((norms_E <= kept["clip"]).sum())
        _, kept = mechanism.release(
            torch.zeros(1),
            inside=inside,
            total=400,
            expected=400.0,
            budget=LOUD,
            state=kept,
            noise=mechanism.source(0, turn),
        )
    assert float((norms_E <= kept["clip"]).double().mean()) == pytest.approx(0.3, abs=0.03)


def test_sum_beside_a_count_has_the_larger_noise():
    # z = 1.5 and sigma_b = 2: (1.5^-2 - 4^-2)^-1/2 = 1.618; both together cost what 1.5 costs.
    released_P, _ = release(Gaussian(**ADAPTIVE), torch.zeros(100_000), 0)
    assert float(released_P.std()) == pytest.approx(1.618, rel=0.02)


@pytest.mark.parametrize("multiplier", [0.2, 1.5, 3.9])
def test_count_and_sum_together_cost_what_the_multiplier_costs(multiplier):
    # Two Gaussians of one record, the sum moved by C and the count by 1/2, are one whose squared ratios are added.
    # With 1 for every number of noise, the released sum is C times the multiplier that it gets.
    released_P, _ = Gaussian(clip=0.2, **ADAPTIVE).release(
        torch.zeros(1, dtype=torch.float64),
        inside=0.0,
        total=0,
        expected=1.0,
        budget=PrivacyBudget(0.1, multiplier, 1e-3, 9),
        state={"clip": torch.tensor(0.2)},
        noise=torch.ones,
    )
    of_sum, of_count = float(released_P) / 0.2, 2.0
    assert (of_sum**-2 + (0.5 / of_count) ** 2) ** -0.5 == pytest.approx(multiplier)


def test_noise_on_the_count_is_a_twentieth_of_the_expected_number():
    moved = []
    for turn in range(4000):
        _, kept = release(Gaussian(clip_quantile=0.5), torch.zeros(1), turn, inside=50, total=100, expected=100.0)
        moved.append(-math.log(float(kept["clip"])) / 0.2)  # the noisy share less the quantile
    assert np.std(moved) == pytest.approx(1 / 20, rel=0.05)


# ------------------------------------------------------------------------------------------------------------- misuse


def test_neither_epsilon_nor_multiplier_is_refused():
    with pytest.raises(ConfigError, match=r"^epsilon: found 0 beside noise_multiplier = 0, allowed is one of them > 0"):
        Gaussian(epsilon=0)


@pytest.mark.parametrize("clip", [0, -1.0, math.inf, math.nan])
def test_clip_that_is_not_positive_is_refused(clip):
    with pytest.raises(ConfigError, match=r"^clip: found .*, allowed is a number > 0\.$"):
        Gaussian(clip=clip)


@pytest.mark.parametrize("epsilon", [-1, math.inf, math.nan])
def test_epsilon_below_zero_is_refused(epsilon):
    with pytest.raises(ConfigError, match=r"^epsilon: found .*, allowed is a number >= 0\.$"):
        Gaussian(epsilon=epsilon)


@pytest.mark.parametrize("delta", [0.002, 0.5])
def test_delta_of_one_over_n_is_refused(delta):
    with pytest.raises(ConfigError, match=r"^privacy\.delta: found .* for 500 records, allowed is < 1/n = 0\.002:"):
        Gaussian(delta=delta).budget(population=500, expected=5, uses=3)


def test_default_delta_of_a_lone_record_is_refused():
    with pytest.raises(ConfigError, match=r"^privacy\.delta: found n\^-1\.1 = 1, the default, for 1 records"):
        Gaussian().budget(population=1, expected=1, uses=3)


def test_budget_below_one_use_is_refused():
    with pytest.raises(
        ConfigError, match=r"^privacy\.noise_multiplier: found 0\.1, with which one use alone costs more"
    ):
        Gaussian(noise_multiplier=0.1, epsilon=1, delta=1e-3).budget(population=100, expected=50, uses=3)


def test_budget_out_of_reach_is_refused():
    with pytest.raises(ConfigError, match=r"^privacy\.epsilon: found 1e-06, not reachable in 9 uses .*the smallest is"):
        Gaussian(epsilon=1e-6, delta=1e-7).budget(population=100, expected=50, uses=9)


@pytest.mark.parametrize("wrong", [{"population": 0}, {"uses": 0}, {"expected": 0.0}])
def test_owner_without_data_or_uses_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"^privacy: found .* records, .* expected in each of .* uses"):
        Gaussian().budget(**{"population": 10, "expected": 2.0, "uses": 3} | wrong)


def test_adaptive_norm_with_local_noise_is_refused():
    with pytest.raises(ConfigError, match=r"^clip_quantile: an adaptive norm needs a count over clients"):
        Gaussian(unit="client_local", clip_quantile=0.5)


def test_adaptive_norm_under_too_much_noise_is_refused():
    mechanism = Gaussian(noise_multiplier=2.0, clip_quantile=0.5, delta=1e-3)
    with pytest.raises(ConfigError, match=r"^privacy\.clip_quantile: found a noise multiplier of 2, .* is < 1;"):
        mechanism.budget(population=100, expected=10, uses=3)


def test_mechanism_without_noise_has_no_source():
    with pytest.raises(ConfigError, match=r"^privacy: this mechanism adds no noise\.$"):
        NoPrivacy().source(0)


@pytest.mark.parametrize(("key", "value"), [("unit", "user"), ("clipping", "local"), ("accountant", "prv")])
def test_unknown_choice_is_refused_with_its_path(key, value):
    with pytest.raises(ConfigError, match=rf"^privacy\.{key}: "):
        build(Gaussian, {key: value}, "privacy")


def test_unknown_key_is_refused_with_a_suggestion():
    with pytest.raises(UnknownNameError, match=r"^privacy\.epsilonn: unknown key\. Did you mean 'epsilon'\?"):
        build(Gaussian, {"epsilonn": 8.0}, "privacy")


def test_refusal_of_a_run_file_names_the_table():
    with pytest.raises(ConfigError, match=r"^privacy\.epsilon: found 0 beside"):
        build(Gaussian, {"epsilon": 0.0}, "privacy")


def test_gaussian_is_a_final_member_of_its_family():
    assert Gaussian.__bases__ == (Mechanism,)
