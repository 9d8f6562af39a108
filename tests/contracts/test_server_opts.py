"""What every server optimiser must hold, in each of its variants."""

import pickle
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from fedloom.base import rng, tree
from fedloom.base.errors import ConfigError
from fedloom.base.plugin import lookup, names
from fedloom.contracts.federated import ServerOpt
from support import oracles
from support.toy_training import make
from support.trees import norm

SHAPES = {"a": (3, 2), "b": (4,)}


def cases():
    for name in names(ServerOpt):
        hints = get_type_hints(lookup(ServerOpt, name))
        yield name, {}
        for variant in get_args(hints.get("variant")):
            yield name, {"variant": variant} | ({"momentum": 0.5} if "momentum" in hints else {})


CASES = list(cases())
every = pytest.mark.parametrize(
    ("name", "settings"), CASES, ids=[f"{n}-{'-'.join(map(str, s.values()))}" for n, s in CASES]
)


def random_tree(*seed, dtype=torch.float64):
    draws = rng.generator("server", *seed)
    return {key: torch.randn(shape, generator=draws, dtype=dtype) for key, shape in SHAPES.items()}


def run(server, rounds, dtype=torch.float64, start=0):
    """Return params and state after some rounds of random changes."""
    params = random_tree("params", dtype=dtype)
    state = server.init(params)
    for round in range(start, start + rounds):
        params, state = server.step(params, random_tree("delta", round, dtype=dtype), state, round=round)
    return params, state


def digests(*trees):
    return [tree.digest(content) for content in trees]


@every
def test_pickle_round_trip_is_equal(name, settings):
    server = make(ServerOpt, name, **settings)
    assert pickle.loads(pickle.dumps(server)) == server


@every
def test_step_changes_none_of_its_inputs(name, settings):
    server = make(ServerOpt, name, **settings)
    params, state = run(server, 2)
    delta = random_tree("delta", 2)
    before = digests(params, delta, *state.values())
    server.step(params, delta, state, round=2)
    assert digests(params, delta, *state.values()) == before


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_step_keeps_dtypes(name, settings, dtype):
    params, state = run(make(ServerOpt, name, **settings), 2, dtype)
    assert {t.dtype for content in (params, *state.values()) for t in content.values()} == {dtype}


@every
def test_step_keeps_the_layout_of_params(name, settings):
    params, _ = run(make(ServerOpt, name, **settings), 2)
    assert tree.Layout.of_tree(params) == tree.Layout.of_tree(random_tree("params"))


@every
def test_step_keeps_the_layout_of_its_slots(name, settings):
    server = make(ServerOpt, name, **settings)
    _, state = run(server, 2)
    assert tree.Layout.of(state) == tree.Layout.of(server.init(random_tree("params")))


@every
def test_no_change_in_the_first_round_moves_nothing(name, settings):
    server, params = make(ServerOpt, name, **settings), random_tree("params")
    moved, _ = server.step(params, tree.zeros_like(params), server.init(params), round=0)
    assert digests(moved) == digests(params)


@every
def test_first_step_goes_the_way_of_the_change(name, settings):
    server, params, delta = make(ServerOpt, name, **settings), random_tree("params"), random_tree("delta")
    moved, _ = server.step(params, delta, server.init(params), round=0)
    way = tree.sub(moved, params)
    assert all(bool((torch.sign(way[key]) == torch.sign(delta[key])).all()) for key in delta)


@every
def test_step_on_a_row_is_that_on_the_tree(name, settings):
    server, params, delta = make(ServerOpt, name, **settings), random_tree("params"), random_tree("delta")
    row, layout = {"": tree.flatten(params)}, tree.Layout.of_tree(params)
    whole, _ = server.step(row, {"": tree.flatten(delta)}, server.init(row), round=0)
    moved, _ = server.step(params, delta, server.init(params), round=0)
    assert digests(layout.tree(whole[""])) == digests(moved)


@every
def test_saved_slots_give_the_same_bits(name, settings):
    server = make(ServerOpt, name, **settings)
    params, state = run(server, 2, torch.float32)
    delta = random_tree("delta", 2, dtype=torch.float32)
    saved = {slot: load(save(content)) for slot, content in state.items()}
    again, _ = server.step(load(save(params)), delta, saved, round=2)
    unbroken, _ = server.step(params, delta, state, round=2)
    assert digests(again) == digests(unbroken)


@every
def test_gain_is_what_the_last_direction_was_multiplied_by(name, settings):
    server = make(ServerOpt, name, lr=0.25, **settings)
    params, delta = {"w": torch.tensor([0.25], dtype=torch.float64)}, {"w": torch.tensor([-3e-3], dtype=torch.float64)}
    moved, state = server.step(params, delta, server.init(params), round=0)
    direction = state["momentum"]["w"] if "momentum" in state else delta["w"]
    assert server.gain(state) == pytest.approx(((moved["w"] - params["w"]) / direction).item(), rel=1e-9)


@pytest.mark.parametrize("name", ["adagrad", "yogi", "adam"])
@pytest.mark.parametrize("variant", ["reddi", "published"])
def test_gain_equals_the_mean_of_the_formula(name, variant):
    settings = {} if name == "adagrad" else {"variant": variant}
    server = make(ServerOpt, name, lr=0.02, tau=0.1, **settings)
    _, state = run(server, 3)
    oracle = oracles.FedOpt(name, eta=0.02, tau=0.1, variant="reddi" if name == "adagrad" else variant)
    for round in range(3):
        oracle.step(np.zeros(10), tree.flatten(random_tree("delta", round)).numpy(), round)
    assert server.gain(state) == pytest.approx(oracle.mean_gain(), rel=1e-12)


PUBLISHED = [("sgd", {"momentum": 0.9}), ("yogi", {"variant": "published"}), ("adam", {"variant": "published"})]


@pytest.mark.parametrize(("name", "settings"), PUBLISHED)
def test_published_momentum_is_undamped_in_round_zero(name, settings):
    _, state = run(make(ServerOpt, name, **settings), 1)
    assert digests(state["momentum"]) == digests(random_tree("delta", 0))


@pytest.mark.parametrize(("name", "settings"), PUBLISHED)
def test_published_momentum_is_damped_in_any_later_round(name, settings):
    _, state = run(make(ServerOpt, name, **settings), 1, start=4)
    assert norm(tree.sub(state["momentum"], tree.scale(random_tree("delta", 4), 0.1))) < 1e-12


@pytest.mark.parametrize("name", ["yogi", "adam"])
def test_reddi_momentum_is_damped_in_round_zero(name):
    _, state = run(make(ServerOpt, name), 1)
    assert norm(tree.sub(state["momentum"], tree.scale(random_tree("delta", 0), 0.1))) < 1e-12


@pytest.mark.parametrize("name", ["adagrad", "yogi", "adam"])
def test_first_v_is_tau_squared_unless_given(name):
    server = make(ServerOpt, name, tau=0.5)
    assert set(server.init(random_tree("params"))["squares"]["b"].tolist()) == {0.25}


@pytest.mark.parametrize("name", ["adagrad", "yogi", "adam"])
def test_first_v_is_the_one_given(name):
    server = make(ServerOpt, name, tau=0.5, initial=0.0)
    assert set(server.init(random_tree("params"))["squares"]["b"].tolist()) == {0.0}


@pytest.mark.parametrize(
    ("name", "key"), [("sgd", "momentum"), ("yogi", "beta1"), ("yogi", "beta2"), ("adam", "beta1"), ("adam", "beta2")]
)
def test_decay_of_one_is_refused(name, key):
    with pytest.raises(ConfigError, match=rf"^{key}: found 1, allowed is a number >= 0 and < 1\.$"):
        make(ServerOpt, name, **{key: 1.0})


@pytest.mark.parametrize("name", ["adagrad", "yogi", "adam"])
def test_tau_of_zero_is_refused(name):
    with pytest.raises(ConfigError, match=r"^tau: found 0\.0, allowed is a number > 0\.$"):
        make(ServerOpt, name, tau=0.0)
