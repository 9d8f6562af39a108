"""What every rule must hold, shipped or registered besides."""

import pickle

import pytest
import torch
from safetensors.torch import load, save

from fedloom.base import rng, tree
from fedloom.base.plugin import lookup, names
from fedloom.contracts.federated import Local, Rule, ServerOpt
from fedloom.federated.rounds import State
from support.toy_training import Training, make
from support.trees import norm, unstack

SHAPES = {"a": (3, 2), "b": (4,)}
K, STEPS, LR = 3, 5, 0.1

pytestmark = pytest.mark.parametrize("name", names(Rule))


def random_tree(*seed, like=None, dtype=torch.float64):
    shapes = SHAPES if like is None else {key: tuple(tensor.shape) for key, tensor in like.items()}
    draws = rng.generator("rules", *seed)
    return {key: torch.randn(shape, generator=draws, dtype=dtype) for key, shape in shapes.items()}


def random_slots(slots, *seed):
    return {slot: random_tree(slot, *seed, like=content) for slot, content in slots.items()}


def locals_of(rule, count=K):
    """Clients of one round: one anchor, the server's slots in common, memories of their own."""
    anchor = random_tree("anchor")
    shared = random_slots(rule.init_shared(anchor), "shared")
    return [Local(anchor, shared, random_slots(rule.init_memory(anchor), "memory", k)) for k in range(count)]


def stacked(rule_locals):
    first = rule_locals[0]
    memory = {slot: tree.stack([local.memory[slot] for local in rule_locals]) for slot in first.memory}
    return Local(first.anchor, first.shared, memory)


def flat(content):
    return {"": tree.flatten(content)}


def flattened(local):
    shared = {slot: flat(content) for slot, content in local.shared.items()}
    return Local(flat(local.anchor), shared, {slot: flat(content) for slot, content in local.memory.items()})


def digests(*trees):
    return [tree.digest(content) for content in trees]


def trees_of(local):
    return [local.anchor, *local.shared.values(), *local.memory.values()]


def test_defaults_construct(name):
    assert isinstance(make(Rule, name), Rule)


def test_pickle_round_trip_is_equal(name):
    rule = make(Rule, name)
    assert pickle.loads(pickle.dumps(rule)) == rule


def test_name_is_that_of_the_module(name):
    assert lookup(Rule, name).__module__.split(".")[-1] == name


def test_correct_changes_none_of_its_inputs(name):
    rule = make(Rule, name)
    local, grad, params = locals_of(rule)[0], random_tree("grad"), random_tree("params")
    before = digests(grad, params, *trees_of(local))
    rule.correct(grad, params, local)
    assert digests(grad, params, *trees_of(local)) == before


def test_adjust_changes_none_of_its_inputs(name):
    rule = make(Rule, name)
    local, params = locals_of(rule)[0], random_tree("params")
    before = digests(params, *trees_of(local))
    rule.adjust(params, local, lr=LR)
    assert digests(params, *trees_of(local)) == before


def test_finish_changes_none_of_its_inputs(name):
    rule = make(Rule, name)
    local, params = locals_of(rule)[0], random_tree("params")
    before = digests(params, *trees_of(local))
    rule.finish(params, local, steps=STEPS, lr=LR)
    assert digests(params, *trees_of(local)) == before


def test_finish_returns_nothing_that_lies_in_the_params(name):
    rule = make(Rule, name)
    local, params = locals_of(rule)[0], random_tree("params")
    upload, memory = rule.finish(params, local, steps=STEPS, lr=LR)
    before = digests(*upload.values(), *memory.values())
    for tensor in params.values():
        tensor.fill_(9.0)  # the engine lends one set of buffers to one client after another
    assert digests(*upload.values(), *memory.values()) == before


def test_merge_changes_none_of_its_inputs(name):
    rule = make(Rule, name)
    local = locals_of(rule)[0]
    upload, _ = rule.finish(random_tree("params"), local, steps=STEPS, lr=LR)
    before = digests(*local.shared.values(), *upload.values())
    rule.merge(local.shared, upload, fraction=0.5)
    assert digests(*local.shared.values(), *upload.values()) == before


def test_correct_of_stacked_clients_is_that_of_each(name):
    rule = make(Rule, name)
    clients = locals_of(rule)
    grads, params = [random_tree("grad", k) for k in range(K)], [random_tree("params", k) for k in range(K)]
    apart = [rule.correct(*each) for each in zip(grads, params, clients, strict=True)]
    together = rule.correct(tree.stack(grads), tree.stack(params), stacked(clients))
    assert digests(*unstack(together)) == digests(*apart)


def test_adjust_of_stacked_clients_is_that_of_each(name):
    rule = make(Rule, name)
    clients, params = locals_of(rule), [random_tree("params", k) for k in range(K)]
    apart = [rule.adjust(p, local, lr=LR) for p, local in zip(params, clients, strict=True)]
    together = rule.adjust(tree.stack(params), stacked(clients), lr=LR)
    assert digests(*unstack(together)) == digests(*apart)


def test_correct_of_a_flattened_tree_is_the_flattened_one(name):
    rule = make(Rule, name)
    local, grad, params = locals_of(rule)[0], random_tree("grad"), random_tree("params")
    whole = rule.correct(flat(grad), flat(params), flattened(local))
    assert digests(whole) == digests(flat(rule.correct(grad, params, local)))


def test_adjust_of_a_flattened_tree_is_the_flattened_one(name):
    rule = make(Rule, name)
    local, params = locals_of(rule)[0], random_tree("params")
    whole = rule.adjust(flat(params), flattened(local), lr=LR)
    assert digests(whole) == digests(flat(rule.adjust(params, local, lr=LR)))


def test_delta_of_an_upload_is_params_minus_anchor(name):
    rule = make(Rule, name)
    local, params = locals_of(rule)[0], random_tree("params")
    upload, _ = rule.finish(params, local, steps=STEPS, lr=LR)
    assert digests(upload["delta"]) == digests(tree.sub(params, local.anchor))


def test_uniform_slots_are_uploaded(name):
    rule = make(Rule, name)
    upload, _ = rule.finish(random_tree("params"), locals_of(rule)[0], steps=STEPS, lr=LR)
    assert rule.uniform_slots <= upload.keys()


def test_memory_keeps_its_layout(name):
    rule = make(Rule, name)
    local = locals_of(rule)[0]
    _, memory = rule.finish(random_tree("params"), local, steps=STEPS, lr=LR)
    assert tree.Layout.of(memory) == tree.Layout.of(local.memory)


def test_shared_slots_keep_their_layout(name):
    rule = make(Rule, name)
    local = locals_of(rule)[0]
    upload, _ = rule.finish(random_tree("params"), local, steps=STEPS, lr=LR)
    _, shared = rule.merge(local.shared, upload, fraction=0.5)
    assert tree.Layout.of(shared) == tree.Layout.of(local.shared)


def test_no_local_change_gives_zero_delta(name):
    rule, anchor = make(Rule, name), random_tree("anchor")
    local = Local(anchor, rule.init_shared(anchor), rule.init_memory(anchor))
    upload, _ = rule.finish(anchor, local, steps=STEPS, lr=LR)
    delta, _ = rule.merge(local.shared, upload, fraction=0.5)
    assert norm(delta) == 0


def test_float32_stays_float32(name):
    rule = make(Rule, name)
    anchor, params = random_tree("anchor", dtype=torch.float32), random_tree("params", dtype=torch.float32)
    local = Local(anchor, rule.init_shared(anchor), rule.init_memory(anchor))
    step = rule.adjust(rule.correct(params, params, local), local, lr=LR)
    upload, memory = rule.finish(step, local, steps=STEPS, lr=LR)
    dtypes = {tensor.dtype for content in (*upload.values(), *memory.values()) for tensor in content.values()}
    assert dtypes == {torch.float32}


def reloaded(slots):
    """Slots after a way through a safetensors file in memory."""
    return {slot: load(save(content)) for slot, content in slots.items()}


def toy_clients():
    draws = rng.numpy_random("toy clients")
    optima, curvature = draws.normal(size=(4, 6)), draws.uniform(0.5, 1.5, size=(4, 6))
    return [(lambda w, a=a, b=b: a * (w - b), 1.0 + i) for i, (a, b) in enumerate(zip(curvature, optima, strict=True))]


def training(name, server="sgd", clients=None):
    server_opt = make(ServerOpt, server, **({"momentum": 0.5} if server == "sgd" else {}))
    return Training(
        clients or toy_clients(), torch.linspace(-1, 1, 6).double(), make(Rule, name), server_opt, STEPS, LR
    )


def test_identical_clients_of_any_weight_train_as_one(name):
    gradient, _ = toy_clients()[0]
    alone, five = (training(name, clients=[(gradient, 1.0 + i) for i in range(n)]) for n in (1, 5))
    for _ in range(3):
        one, same = alone.round([0]), five.round(range(5))
    torch.testing.assert_close(same, one, rtol=0, atol=1e-14)


def restored(state):
    """The state of a training after a way through safetensors files in memory."""
    memory = {client: reloaded(slots) for client, slots in state.memory.items()}
    params_P = load(save({"": state.params_P}))[""]
    return State(state.round, params_P, reloaded(state.shared), reloaded(state.opt), memory)


@pytest.mark.parametrize("server", names(ServerOpt))
def test_training_from_a_saved_state_gives_the_same_bits(name, server):
    unbroken, broken = training(name, server), training(name, server)
    for sampled in ([0, 1, 3], [1, 2, 3], [0, 1, 2]):
        unbroken.round(sampled)
        saved, broken = broken.state, training(name, server)
        broken.state = restored(saved)
        broken.round(sampled)
    assert digests({"": broken.state.params_P}) == digests({"": unbroken.state.params_P})
