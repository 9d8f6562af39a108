"""The numbers of the published specification, by the real round in float64, to 1e-12."""

import numpy as np
import pytest
import torch

from fedloom.contracts.federated import Local, Rule, ServerOpt
from fedloom.federated.rounds import State
from support import oracles
from support.toy_training import Training, make

DELTA_1, DELTA_2 = (4e-3, 2e-3, -1e-3), (0.0, 2e-3, 3e-3)
SAMPLES, UNIFORM = (100.0, 300.0), (1.0, 1.0)
PUBLISHED, REDDI = {"variant": "published"}, {"variant": "reddi"}

# (rule, server optimiser, its settings, weights, theta after rounds 1 to 3)
VECTORS = {
    "fedavg": ("plain", "sgd", {}, SAMPLES, (1.0e-3, 3.0e-3, 5.0e-3)),
    "fedprox": ("prox", "sgd", {}, SAMPLES, (1.0e-3, 3.0e-3, 5.0e-3)),
    "fedavgm": ("plain", "sgd", {"momentum": 0.9}, SAMPLES, (1.0e-3, 2.1e-3, 3.29e-3)),
    "fedavgm_half": ("plain", "sgd", {"momentum": 0.5}, SAMPLES, (1.0e-3, 2.5e-3, 4.25e-3)),
    "fedadagrad": ("plain", "adagrad", {}, UNIFORM, (6.180339887e-4, 1.118033989e-3, 1.358287062e-3)),
    "fedyogi_published": ("plain", "yogi", PUBLISHED, UNIFORM, (9.901951359e-4, 1.970957249e-3, 2.894876694e-3)),
    "fedadam_published": ("plain", "adam", PUBLISHED, UNIFORM, (9.926104339e-4, 1.978114987e-3, 2.908698013e-3)),
    "fedyogi_reddi": ("plain", "yogi", REDDI, UNIFORM, (9.901951359e-5, 2.853643152e-4, 5.026265313e-4)),
    "fedadam_reddi": ("plain", "adam", REDDI, UNIFORM, (9.926104339e-5, 2.865069085e-4, 5.043345430e-4)),
}


def tree64(*numbers):
    return {"w": torch.tensor(numbers, dtype=torch.float64)}


def moving_by(offsets):
    """A gradient whose one step a round, at learning rate 1, moves the parameters by the offsets, one after another."""
    left = iter(offsets)
    return lambda w: np.full_like(w, -next(left))


@pytest.mark.parametrize("method", VECTORS)
def test_theta_follows_the_reference_vector(method):
    rule, server, settings, weights, expected = VECTORS[method]
    clients = [(moving_by(offsets), weight) for offsets, weight in zip((DELTA_1, DELTA_2), weights, strict=True)]
    start = torch.zeros(1, dtype=torch.float64)
    training = Training(clients, start, make(Rule, rule), make(ServerOpt, server, **settings), 1, 1.0)
    assert [training.round([0, 1]).item() for _ in range(3)] == pytest.approx(expected, abs=1e-12, rel=0)


SERVERS = {
    "fedavgm": oracles.FedAvgM(0.9),
    "fedavgm_half": oracles.FedAvgM(0.5),
    "fedadagrad": oracles.FedOpt("adagrad"),
    "fedyogi_published": oracles.FedOpt("yogi", variant="published"),
    "fedadam_published": oracles.FedOpt("adam", variant="published"),
    "fedyogi_reddi": oracles.FedOpt("yogi"),
    "fedadam_reddi": oracles.FedOpt("adam"),
}


@pytest.mark.parametrize("method", SERVERS)
def test_oracle_follows_the_reference_vector(method):
    weights, expected = VECTORS[method][3:]
    theta, found = np.zeros(1), []
    for t, offsets in enumerate(zip(DELTA_1, DELTA_2, strict=True)):
        theta = SERVERS[method].step(theta, oracles.weighted_mean([[x] for x in offsets], weights), t)
        found.append(theta[0])
    assert found == pytest.approx(expected, abs=1e-12, rel=0)


SCAFFOLD_LOCAL = Local(tree64(0.01), {"control": tree64(0.2)}, {"control": tree64(-0.1)})


def test_scaffold_takes_lr_times_the_control_difference_off_a_step():
    adjusted = make(Rule, "scaffold").adjust(tree64(0.0), SCAFFOLD_LOCAL, lr=5e-5)
    assert adjusted["w"].item() == pytest.approx(-5e-5 * 0.3, rel=1e-12)


def test_scaffold_new_control_of_the_client():
    _, memory = make(Rule, "scaffold").finish(tree64(0.0098), SCAFFOLD_LOCAL, steps=10, lr=5e-5)
    assert memory["control"]["w"].item() == pytest.approx(0.1, abs=1e-12)


def test_scaffold_uploaded_change_of_the_control():
    upload, _ = make(Rule, "scaffold").finish(tree64(0.0098), SCAFFOLD_LOCAL, steps=10, lr=5e-5)
    assert upload["control"]["w"].item() == pytest.approx(0.2, abs=1e-12)


def scaffold_round(gradients, weights, sampled):
    """One round of four clients from the controls and the anchor above: ten steps at learning rate 5e-5."""
    clients = [(lambda w, g=g: np.full_like(w, g), weight) for g, weight in zip(gradients, weights, strict=True)]
    anchor, control, own = (torch.tensor([x], dtype=torch.float64) for x in (0.01, 0.2, -0.1))
    training = Training(clients, anchor, make(Rule, "scaffold"), make(ServerOpt, "sgd"), 10, 5e-5)
    memory = {str(index): {"control": {"": own}} for index in range(4)}
    training.state = State(0, anchor, {"control": {"": control}}, {}, memory)
    training.round(sampled)
    return training


def test_scaffold_client_ends_where_the_specification_says():
    assert scaffold_round([0.1] * 4, [1.0] * 4, [2]).state.params_P.item() == pytest.approx(0.0098, abs=1e-12)


def test_scaffold_new_control_of_the_server_counts_all_four_clients():
    assert scaffold_round([0.1] * 4, [1.0] * 4, [2]).shared["control"]["w"].item() == pytest.approx(0.25, abs=1e-12)


def test_scaffold_control_of_the_server_moves_by_the_uniform_mean_whatever_the_weights():
    training = scaffold_round([0.1, 0.7, 0.0, 0.0], [100.0, 300.0, 1.0, 1.0], [0, 1])
    assert training.shared["control"]["w"].item() == pytest.approx(0.2 + 2 / 4 * (0.2 + 0.8) / 2, abs=1e-12)


def test_scaffold_parameters_move_by_the_weighted_mean():
    training = scaffold_round([0.1, 0.7, 0.0, 0.0], [100.0, 300.0, 1.0, 1.0], [0, 1])
    moved = -10 * 5e-5 * (0.25 * 0.1 + 0.75 * 0.7 + 0.3)
    assert training.state.params_P.item() == pytest.approx(0.01 + moved, abs=1e-12)


def test_prox_adds_2e_4_to_the_gradient():
    grad = make(Rule, "prox", mu=0.01).correct(tree64(0.5), tree64(1.02), Local(tree64(1.0)))
    assert grad["w"].item() - 0.5 == pytest.approx(2e-4, abs=1e-12)


def test_prox_gradient_is_that_of_a_loss_2e_6_higher():
    rule, local = make(Rule, "prox", mu=0.01), Local(tree64(1.0))
    half_way = rule.correct(tree64(0.0), tree64(1.01), local)["w"].item()  # linear, so the midpoint rule is exact
    assert half_way * 0.02 == pytest.approx(2e-6, abs=1e-12)


def test_oracle_of_the_prox_loss_is_2e_6_higher():
    value = oracles.prox_objective(lambda w: 3.0, 0.01, np.array([1.0]))(np.array([1.02]))
    assert value - 3.0 == pytest.approx(2e-6, abs=1e-12)


@pytest.mark.parametrize("name", ["adagrad", "yogi", "adam"])
def test_gain_before_any_change_is_one_half_with_the_published_constants(name):
    server = make(ServerOpt, name)
    assert server.gain(server.init(tree64(0.0, 1.0))) == pytest.approx(0.5, rel=1e-12)
