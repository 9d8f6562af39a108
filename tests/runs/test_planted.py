"""An audit that can fail: seven faults of a mechanism are refuted at 95 %, the mechanism as it is is not.

The whole round runs, with its engine, kernels, clip, sum and noise; the task has no loss but that of the canaries, so
that thousands of trials take a second. A fault is planted where the code would have it: in what is released, in the
source of noise, in the factors that clip.
"""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import beta
from torch import nn

from fedloom.base import rng
from fedloom.base.errors import ConfigError
from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout
from fedloom.contracts.federated import (
    Aggregator,
    Batch,
    Codec,
    LossSum,
    Mechanism,
    Model,
    Rule,
    ServerOpt,
    Shard,
    Task,
    Work,
)
from fedloom.contracts.local_settings import LocalSettings
from fedloom.contracts.model import ForwardContext
from fedloom.federated.privacy.gaussian import Gaussian
from fedloom.federated.rounds import Plan
from fedloom.runs import audit_bounds as auditing
from fedloom.runs.audit_bounds import best_thresholds, least_leak, many_trials_bound
from fedloom.runs.planted import Target, trials

pytestmark = pytest.mark.slow

DELTA = 0.01
STATED = 0.999
UNITS = ("example", "client", "client_local")
N_CANARIES = {"example": 2500, "client": 1800, "client_local": 1500}


class Nothing(Task):
    """A task in which nothing is to be learnt."""

    def encode(self, example, model):
        raise NotImplementedError

    scores = predict = counts = encode

    def size(self, item):
        return 1

    targets = size

    def collate(self, parts, model):
        return Batch(client_E=torch.tensor([k for k, part in enumerate(parts) for _ in part]))

    def loss(self, model, params, batch):
        count = len(batch.client_E)
        touched = params["w"].sum() * 0  # takes part in the graph
        return LossSum(torch.zeros(count) + touched, torch.ones(count))


@cache
def calibrated(mechanism, population, expected, uses):
    """Guards of the honest mechanism, once for all faults."""
    return mechanism.budget(population=population, expected=expected, uses=uses)


@cache
def accounted(mechanism, budget, uses):
    return mechanism.spent(budget, uses)


class Faulty(Mechanism):
    """A Gaussian mechanism with one fault."""

    def __init__(self, fault, unit, **settings):
        self.fault = fault
        self.honest = Gaussian(**{"unit": unit, "epsilon": STATED, "delta": DELTA, "clip": 1.0} | settings)

    def covers(self):
        return self.honest.covers()

    def bound(self):
        return self.honest.bound()

    def init(self):
        return self.honest.init()

    def spread(self, budget, state, expected):
        return self.honest.spread(budget, state, expected)

    def budget(self, *, population, expected, uses):
        return calibrated(self.honest, population, expected, uses)

    def spent(self, budget, uses, before=()):
        return accounted(self.honest, budget, uses)

    def source(self, *names):
        if self.fault == "one noise vector for all steps" and names[0] == "noise":
            names = (*names[:2], 0, *names[3:4], *(0 for _ in names[4:]))
        return self.honest.source(*names)

    def scales(self, norms_LE, state):
        if self.fault == "no clipping":
            return torch.ones_like(norms_LE)
        if self.fault == "clip at 4 C":
            return (4 / norms_LE.norm(dim=0)).clamp(max=1).expand_as(norms_LE)
        if self.fault == "clipping of batches":
            return self.of_batches(norms_LE)
        return self.honest.scales(norms_LE, state)

    def of_batches(self, norms_LE):
        """The mean of a batch is clipped, and counts as if each of its contributions had been."""
        if self.covers().name == "client":
            return torch.full_like(norms_LE, 1 / 1e6)  # in the release, where the batch is known
        if self.covers().name == "client_local":  # a batch is what a step sees: two steps' gradients pass, each clipped
            return (2 / norms_LE.norm(dim=0)).clamp(max=1).expand_as(norms_LE)
        norm_E = norms_LE.norm(dim=0)
        return (len(norm_E) / norm_E.square().sum().sqrt()).clamp(max=1).expand_as(norms_LE)

    def release(self, sum_P, *, total, budget, **settings):
        if self.fault == "clipping of batches" and self.covers().name == "client" and total:
            mean_P = sum_P * 1e6 / total
            sum_P = total * mean_P / max(1.0, float(mean_P.norm()))
        if self.fault.startswith("noise x"):
            share = float(self.fault.split("x")[1])
            budget = type(budget)(budget.rate, budget.noise_multiplier * share, budget.delta, budget.max_uses)
        return self.honest.release(sum_P, total=total, budget=budget, **settings)


def stage(fault, unit, *, clients, rounds=2, steps=1, **settings):
    """A training of clients with two records each."""
    mechanism = Faulty(fault, unit, **settings)
    module = nn.Linear(2, 2)
    model = Model(module=module, trainable={"w": torch.zeros(3)}, context=ForwardContext(), base_id="", stackable=True)
    local = LocalSettings(lr=0.1, steps=steps, batch=24, optimiser="sgd", clip_norm=0.0)
    names = tuple(f"c{k}" for k in range(clients))
    layout = Layout.of_tree(model.trainable)
    plain = lookup(Rule, "plain")()
    codec = lookup(Codec, "float32")()
    plan = Plan(
        rule=plain, server_opt=lookup(ServerOpt, "sgd")(), aggregator=lookup(Aggregator, "mean")(), local=local,
        clients=names, clients_per_round=10**6, rounds=rounds, seed=0, mechanism=mechanism, codec=codec,
        layout=layout, stream=0, weighting="uniform",
    )  # fmt: skip
    shards = {name: Shard((None,) * 2) for name in names}
    work = Work(plan=plan, model=model, task=Nothing(), shards=shards, private={})

    def budgets(sizes):
        # The accountant is told of few records, as a delta of a hundredth needs; rates and uses are the real ones.
        if unit == "client":
            return {"": mechanism.budget(population=90, expected=45, uses=rounds)}
        if unit == "client_local":
            return dict.fromkeys(sizes, mechanism.budget(population=90, expected=1, uses=rounds))
        made = {
            n: mechanism.budget(population=90, expected=min(90 * 24 / n, 90), uses=rounds) for n in set(sizes.values())
        }
        return {client: made[n] for client, n in sizes.items()}

    return Target(work, budgets)


def audited(fault, unit, n_canaries, seed=0):
    """Scores and coins of one audit."""
    return trials(stage(fault, unit, clients=20 if unit == "example" else 1), n_canaries=n_canaries, seed=seed)


def bound(found):
    """The lower bound on epsilon at 95 %."""
    thresholds = best_thresholds(found.shapes, delta=DELTA)
    return many_trials_bound(found.score_M, found.included_M, thresholds=thresholds, delta=DELTA).epsilon


# ------------------------------------------------------------------------------------------------------ what is refuted

units = pytest.mark.parametrize("unit", UNITS)


@units
@pytest.mark.parametrize(
    "fault",
    [
        "noise x0.5",
        "noise x0.25",
        "noise x0.1",
        "one noise vector for all steps",
        "clipping of batches",
        "no clipping",
        "clip at 4 C",
    ],
)
def test_each_fault_is_refuted(unit, fault):
    assert bound(audited(fault, unit, N_CANARIES[unit])) > STATED


@units
def test_the_mechanism_as_it_is_passes_nineteen_audits_of_twenty(unit):
    refuted = sum(bound(audited("none", unit, 200, seed=seed)) > STATED for seed in range(20))
    assert refuted <= 1


@units
def test_one_audit_of_full_power_does_not_refute_the_mechanism_as_it_is(unit):
    assert bound(audited("none", unit, N_CANARIES[unit])) <= STATED


@units
def test_trials_state_the_epsilon_that_was_asked_for(unit):
    assert audited("none", unit, 50).stated == pytest.approx(STATED, rel=2e-3)


def lie_as_assumed(found):
    """Check the scores of included and other canaries against their laws."""
    (shape,) = found.shapes
    for law, chosen in zip(shape.laws(), (found.included_M, ~found.included_M), strict=True):
        scores = found.score_M[chosen]
        assert scores.mean() == pytest.approx(law.mean, abs=4 * law.stdev / len(scores) ** 0.5)
        assert scores.std() == pytest.approx(law.stdev, rel=0.1)


@units
def test_scores_of_canaries_lie_as_the_accountant_assumes(unit):
    lie_as_assumed(audited("none", unit, N_CANARIES[unit]))


def test_coins_and_scores_follow_from_the_seed():
    one, again, other = (audited("none", "client", 60, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.score_M, again.score_M) and not np.array_equal(one.score_M, other.score_M)


@units
def test_with_more_canaries_a_smaller_leak_would_be_told(unit):
    (shape,) = audited("none", unit, 50).shapes
    few, many = (least_leak({shape: count}, stated=STATED, delta=DELTA) for count in (400, 4000))
    assert 0 < few < many < 1


@units
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_power_told_is_met_in_four_audits_of_five(unit, share):
    """Also where owners are unlike: half of the canaries have the uses of another owner."""
    (shape,) = audited("none", unit, 50).shapes
    shapes = {shape: round(600 * share), replace(shape, uses=1): 600 - round(600 * share)}
    noise = least_leak(shapes, stated=STATED, delta=DELTA)
    thresholds, random = best_thresholds(shapes, delta=DELTA), rng.numpy_random("power", unit)
    refuted = 0
    for _ in range(100):
        coins, scores = [], []
        for one, count in shapes.items():
            included = random.random(count) < 0.5
            laws = [one.laws(noise)[not coin] for coin in included]
            coins.append(included)
            scores.append(random.normal([law.mean for law in laws], [law.stdev for law in laws]))
        found = many_trials_bound(np.concatenate(scores), np.concatenate(coins), thresholds=thresholds, delta=DELTA)
        refuted += found.epsilon > STATED
    assert 0 < noise < 1 and refuted >= 72  # binomial(100, 0.8) less two standard deviations


ADAPTS = {"clip": 100.0, "clip_quantile": 0.5, "clip_rate": 1.0, "clip_count_noise": 50.0}


@pytest.mark.parametrize("unit", ["example", "client"])
def test_faults_are_seen_through_a_norm_that_adapts(unit):
    """Noise and canaries grow with the norm, and the count takes its share of the noise."""
    honest, weak = (
        bound(trials(stage(fault, unit, clients=20, rounds=4, **ADAPTS), n_canaries=1200, seed=0))
        for fault in ("none", "noise x0.1")
    )
    assert honest <= STATED < weak


@pytest.mark.parametrize("unit", ["example", "client"])
def test_scores_lie_as_the_accountant_assumes_when_the_norm_adapts(unit):
    lie_as_assumed(trials(stage("none", unit, clients=20, rounds=4, **ADAPTS), n_canaries=1200, seed=0))


def test_the_bound_is_at_the_largest_delta_of_any_owner():
    this = stage("none", "example", clients=2)
    deltas = iter((0.01, 0.02) * 9)
    budgets = lambda sizes: {name: replace(one, delta=next(deltas)) for name, one in this.budgets(sizes).items()}  # noqa: E731
    assert trials(replace(this, budgets=budgets), n_canaries=20, seed=0).delta == 0.02


def test_run_without_privacy_has_no_releases_to_audit():
    this = stage("none", "client", clients=2)
    bare = Target(replace(this.work, plan=replace(this.work.plan, mechanism=lookup(Mechanism, "none")())), this.budgets)
    with pytest.raises(ConfigError, match="audit: the run has no privacy"):
        trials(bare, n_canaries=10, seed=0)


# ----------------------------------------------------------------------------------------------- bounds by other means


@pytest.mark.parametrize(("hits", "count"), [(0, 20), (7, 20), (20, 20), (150, 1000)])
def test_limits_are_those_of_clopper_and_pearson(hits, count):
    expected = beta.ppf(0.0125, hits, count - hits + 1) if hits else 0.0
    assert auditing._least_rate(hits, count, 0.0125) == pytest.approx(expected, abs=1e-7)


def test_bound_of_known_counts():
    scores, coins = np.array([1.0] * 90 + [0.0] * 10 + [1.0] * 5 + [0.0] * 95), np.arange(200) < 100
    found = many_trials_bound(scores, coins, thresholds=[0.5], delta=0.01)
    least, most = beta.ppf(0.025, 90, 11), beta.ppf(0.975, 6, 95)
    assert (found.epsilon, found.guesses, found.correct) == (pytest.approx(math.log((least - 0.01) / most)), 95, 90)


def test_chance_gives_a_bound_of_zero():
    scores, coins = rng.numpy_random("chance").normal(size=400), np.arange(400) % 2 == 0
    assert many_trials_bound(scores, coins, thresholds=[0.0, 1.0], delta=0.0).epsilon < 0.3


@units
def test_bound_is_one_that_randomised_response_does_not_pass(unit):
    """Trials answered truly with probability e / (1 + e) are 1-private: of twenty bounds one may pass."""
    random = rng.numpy_random("randomised response", unit)
    passed = 0
    for _ in range(100):
        coins = random.random(500) < 0.5
        truth = random.random(500) < math.e / (1 + math.e)
        scores = np.where(coins == truth, 1.0, 0.0)
        passed += many_trials_bound(scores, coins, thresholds=[0.5], delta=0.0).epsilon > 1
    assert passed <= 9
