"""Limiting cases and closed forms: what must hold exactly, and what the oracles say of three rounds."""

from functools import cache, partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.base import rng
from fedloom.contracts.federated import Rule, ServerOpt
from support import oracles
from support.toy_training import Training, make, trace

ROUNDS = 60


def quadratics(seed, n_clients, size):
    """(A, b) of clients whose curvatures and optima differ."""
    draws = rng.numpy_random("quadratics", seed)
    problems = []
    for _ in range(n_clients):
        turn, _ = np.linalg.qr(draws.normal(size=(size, size)))
        problems.append((turn @ np.diag(draws.uniform(0.2, 1.5, size)) @ turn.T, draws.normal(size=size) * 2))
    return problems


def with_weights(problems, weights):
    return [(oracles.quadratic(A, b), weight) for (A, b), weight in zip(problems, weights, strict=True)]


def everyone(n_clients, rounds=ROUNDS):
    return [list(range(n_clients))] * rounds


WORLD = quadratics("world", 4, 3)
START = np.array([3.0, -2.0, 0.5])
EQUAL = with_weights(WORLD, [1.0] * 4)
UNEQUAL = with_weights(WORLD, [1.0, 2.0, 3.0, 10.0])


def train(rule, clients=EQUAL, *, server=None, schedule=None, steps=10, lr=0.2, **more):
    server = server or make(ServerOpt, "sgd")
    return trace(clients, START, rule, server, schedule=schedule or everyone(4), steps=steps, lr=lr, **more)


# --------------------------------------------------------------------------------------------------------- exact limits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_prox_with_mu_zero_is_fedavg(dtype):
    found = train(make(Rule, "prox", mu=0.0), UNEQUAL, schedule=everyone(4, 3), dtype=dtype)
    assert np.array_equal(found, train(make(Rule, "plain"), UNEQUAL, schedule=everyone(4, 3), dtype=dtype))


def test_prox_with_mu_is_not_fedavg():
    found = train(make(Rule, "prox", mu=0.1), schedule=everyone(4, 1))
    assert not np.allclose(found, train(make(Rule, "plain"), schedule=everyone(4, 1)), atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_first_round_of_scaffold_is_fedavg(dtype):
    found = train(make(Rule, "scaffold"), UNEQUAL, schedule=everyone(4, 1), dtype=dtype)
    assert np.array_equal(found, train(make(Rule, "plain"), UNEQUAL, schedule=everyone(4, 1), dtype=dtype))


def test_second_round_of_scaffold_is_not_fedavg():
    found = train(make(Rule, "scaffold"), schedule=everyone(4, 2))
    assert not np.allclose(found[1], train(make(Rule, "plain"), schedule=everyone(4, 2))[1], atol=1e-3)


def test_fedavg_of_one_client_is_plain_training():
    rounds = train(make(Rule, "plain"), EQUAL[:1], schedule=[[0]] * 5)
    np.testing.assert_allclose(rounds[-1], oracles.client_update(START, EQUAL[0][0], 50, 0.2), rtol=0, atol=1e-12)


def test_fedavg_of_one_local_step_is_gradient_descent_on_the_weighted_sum():
    rounds = train(make(Rule, "plain"), UNEQUAL, schedule=everyone(4, 20), steps=1)
    theta = START
    for _ in range(20):
        theta = theta - 0.2 * oracles.weighted_mean([gradient(theta) for gradient, _ in UNEQUAL], [1, 2, 3, 10])
    np.testing.assert_allclose(rounds[-1], theta, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sgd_without_momentum_is_params_plus_delta(dtype):
    params, delta = torch.randn(2, 1000, generator=rng.generator("sgd"), dtype=torch.float64).to(dtype)
    moved, _ = make(ServerOpt, "sgd").step({"w": params}, {"w": delta}, {}, round=0)
    assert torch.equal(moved["w"], params + delta)


@pytest.mark.parametrize("variant", ["published", "hsu"])
def test_first_round_of_fedavgm_is_fedavg(variant):
    server = make(ServerOpt, "sgd", momentum=0.9, variant=variant)
    found = train(make(Rule, "plain"), server=server, schedule=everyone(4, 1))
    assert np.array_equal(found, train(make(Rule, "plain"), schedule=everyone(4, 1)))


def test_hsu_momentum_of_a_constant_change_is_the_geometric_series():
    server, params, state = make(ServerOpt, "sgd", momentum=0.9, variant="hsu"), {"w": torch.zeros(1).double()}, None
    state = server.init(params)
    for round in range(10):
        params, state = server.step(params, {"w": torch.ones(1).double()}, state, round=round)
    assert state["momentum"]["w"].item() == pytest.approx((1 - 0.9**10) / (1 - 0.9), rel=1e-12)


def test_adagrad_is_not_fedavg():
    found = train(make(Rule, "plain"), server=make(ServerOpt, "adagrad"), schedule=everyone(4, 1))
    assert not np.allclose(found, train(make(Rule, "plain"), schedule=everyone(4, 1)), atol=1e-3)


def test_server_learning_rate_scales_the_step():
    half = train(make(Rule, "plain"), server=make(ServerOpt, "sgd", lr=0.5), schedule=everyone(4, 1))[0] - START
    whole = train(make(Rule, "plain"), schedule=everyone(4, 1))[0] - START
    np.testing.assert_allclose(2 * half, whole, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------------ heterogeneous optimum

OPTIMUM = oracles.quadratic_optimum(WORLD, [1, 1, 1, 1])


def distance(theta, optimum=OPTIMUM):
    return float(np.linalg.norm(theta - optimum))


def test_scaffold_reaches_the_optimum_of_heterogeneous_quadratics():
    assert distance(train(make(Rule, "scaffold"))[-1]) < 1e-6


def test_fedavg_misses_the_optimum_of_heterogeneous_quadratics():
    assert distance(train(make(Rule, "plain"))[-1]) > 0.05


def test_fedavg_stands_still_where_it_misses_the_optimum():
    rounds = train(make(Rule, "plain"))
    assert distance(rounds[-1], rounds[-2]) < 1e-6


def test_scaffold_reaches_the_optimum_with_half_of_the_clients_in_a_round():
    schedule = [[0, 1], [2, 3], [0, 2], [1, 3], [0, 3], [1, 2]] * 40
    assert distance(train(make(Rule, "scaffold"), schedule=schedule)[-1]) < 1e-6


def test_scaffold_with_unequal_weights_still_reaches_the_uniform_optimum():
    assert distance(train(make(Rule, "scaffold"), UNEQUAL)[-1]) < 1e-6


def test_server_control_becomes_the_mean_of_the_clients_controls():
    training = Training(EQUAL, torch.from_numpy(START), make(Rule, "scaffold"), make(ServerOpt, "sgd"), 10, 0.2)
    for sampled in ([0, 1], [2, 3], [0, 2]):
        training.round(sampled)
    mean = sum(training.memory[index]["control"]["w"] for index in range(4)) / 4
    torch.testing.assert_close(training.shared["control"]["w"], mean, rtol=0, atol=1e-12)


def test_strong_proximal_term_holds_clients_at_the_anchor():
    moved = train(make(Rule, "prox", mu=4.0), schedule=everyone(4, 1), steps=200)[0] - START
    free = train(make(Rule, "plain"), schedule=everyone(4, 1), steps=200)[0] - START
    assert np.linalg.norm(moved) < 0.5 * np.linalg.norm(free)


def test_prox_client_ends_at_the_minimum_of_its_proximal_problem():
    """argmin 1/2 (w-b)'A(w-b) + mu/2 |w-theta|^2 = (A + mu I)^-1 (A b + mu theta)."""
    (A, b), mu = WORLD[0], 0.7
    moved = train(make(Rule, "prox", mu=mu), EQUAL[:1], schedule=[[0]], steps=500)[0]
    expected = np.linalg.solve(A + mu * np.eye(3), A @ b + mu * START)
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-10)


# ----------------------------------------------------------------------------------------- every pair, three rounds

# server optimisers with settings of both variants, and their oracles
SERVERS = {
    "sgd": ("sgd", {"lr": 0.8}, lambda: oracles.FedAvgServer(0.8)),
    "fedavgm": ("sgd", {"momentum": 0.6}, lambda: oracles.FedAvgM(0.6)),
    "fedavgm_hsu": ("sgd", {"momentum": 0.6, "variant": "hsu"}, lambda: oracles.FedAvgM(0.6, variant="hsu")),
    "adagrad": ("adagrad", {"lr": 0.3, "tau": 0.1}, lambda: oracles.FedOpt("adagrad", 0.3, 0.1)),
}
for kind in ("yogi", "adam"):
    for variant in ("reddi", "published"):
        chosen = {"lr": 0.3, "tau": 0.1, "beta1": 0.8, "beta2": 0.7, "initial": 0.02, "variant": variant}
        SERVERS[f"{kind}_{variant}"] = (kind, chosen, partial(oracles.FedOpt, kind, 0.3, 0.1, 0.8, 0.7, 0.02, variant))
RULES = {"plain": {}, "prox": {"mu": 0.3}, "scaffold": {}}


@cache
def cached_quadratics(seed, n_clients, size):
    return quadratics(seed, n_clients, size)


@st.composite
def federations(draw):
    """Clients with weights, a start and the clients of three rounds."""
    n_clients, size = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    problems = cached_quadratics(draw(st.integers(0, 50)), n_clients, size)
    weights = draw(st.lists(st.integers(1, 50).map(float), min_size=n_clients, max_size=n_clients))
    start = np.array(draw(st.lists(st.floats(-2, 2, width=16), min_size=size, max_size=size)))
    some = st.sets(st.integers(0, n_clients - 1), min_size=1).map(sorted)
    return with_weights(problems, weights), start, draw(st.lists(some, min_size=3, max_size=3))


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@settings(max_examples=5, deadline=None, derandomize=True, database=None)
@given(federation=federations(), weighting=st.sampled_from(["samples", "uniform"]))
def test_three_rounds_follow_the_oracle(rule, server, dtype, tolerance, federation, weighting):
    clients, start, schedule = federation
    name, chosen, oracle = SERVERS[server]
    both = {"schedule": schedule, "weighting": weighting}
    expected = oracles.federate(clients, start, rule=rule, server=oracle(), K=3, eta=0.3, mu=0.3, **both)
    pair = make(Rule, rule, **RULES[rule]), make(ServerOpt, name, **chosen)
    found = trace(clients, start, *pair, steps=3, lr=0.3, dtype=dtype, **both)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
