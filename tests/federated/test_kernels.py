"""Gradients of each example against plain autograd on one example at a time, and the private step against formulas.

The oracle is transformers' own attention over one example, differentiated alone; for bfloat16 bases, whose rounding
depends on the order of sums, it is the plain kernel over micro-batches of one.
"""

from dataclasses import replace
from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.base import tree
from fedloom.base.errors import ConfigError
from fedloom.base.tree import Layout
from fedloom.contracts.federated import PrivacyBudget
from fedloom.federated.kernels import client_gradients, example_gradients
from fedloom.federated.privacy.gaussian import Gaussian
from fedloom.federated.ranks import Fit
from fedloom.tasks.sft import Sft
from support.clients import (
    PLAIN_SGD,
    TASK,
    asked,
    distance,
    examples,
    gradient_alone,
    jobs_of,
    random_params,
    row,
    shards_of,
    tiny,
    trained,
    work,
)
from support.models import ARCHITECTURES

SHAPES = {
    "one client, one length": [[6, 6, 6]],
    "one client, unlike lengths": [[3, 12, 7, 5]],
    "one example": [[5]],
    "clients of one length": [[5, 5], [5, 5], [5, 5]],
    "clients, unlike lengths": [[4, 17], [3], [9, 9, 2]],
    "groups": [[20, 6] * 5, [22, 5] * 4],
    "clients too unlike to be padded": [[3], [40, 9, 30, 2], [4, 7]],
}


def parts_of(shape):
    return [examples(lengths, "kernels", shape, k) for k, lengths in enumerate(SHAPES[shape])]


def leaves_of(clients):
    return {name: leaf.requires_grad_() for name, leaf in tree.stack(clients).items()}


def mean_gradients_alone(model, clients, parts):
    """The gradient of each example's mean loss by autograd on it alone, as rows [P] in the order of the parts."""
    pairs = [(own, item) for own, part in zip(clients, parts, strict=True) for item in part]
    return [gradient_alone(model.module, own, item) / len(asked(item)[0]) for own, item in pairs]


def random_scales(norms_LE):
    return torch.rand(norms_LE.shape, generator=torch.Generator().manual_seed(1)) + 0.5


def check_scaled_sums(model, oracle, clients, parts, *, tolerance=1e-5):
    """The kernel's sums under random factors are those of the examples taken alone."""
    sum_KP, scales_LE = example_gradients(model, TASK, leaves_of(clients), parts, random_scales)
    layout = Layout.of_tree(clients[0])
    alone = iter(zip(mean_gradients_alone(oracle, clients, parts), scales_LE.T, strict=True))
    for part, found in zip(parts, sum_KP, strict=True):
        expected = torch.zeros_like(found)
        for _ in part:
            gradient_P, scales_L = next(alone)
            for (_, _, _, span), scale in zip(layout.spans(), scales_L, strict=True):
                expected[span] += scale * gradient_P[span]
        assert distance(found, expected) < tolerance


def clients_of(model, n_clients):
    return [random_params(model, "kernels", k) for k in range(n_clients)]


# ---------------------------------------------------------------------------------------------- each example by itself


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_scaled_sums_are_those_of_the_examples_alone(architecture, shape):
    model, parts = tiny(architecture), parts_of(shape)
    check_scaled_sums(model, tiny(architecture, attention="eager"), clients_of(model, len(parts)), parts)


@pytest.mark.parametrize("shape", SHAPES)
def test_with_checkpointing_scaled_sums_are_those_of_the_examples_alone(shape):
    model, parts = tiny(checkpointing=True), parts_of(shape)
    check_scaled_sums(model, tiny(attention="eager"), clients_of(model, len(parts)), parts)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_the_gradients_of_its_examples(architecture):
    model, parts = tiny(architecture), parts_of("clients, unlike lengths")
    check_scaled_sums(model, tiny(architecture, attention="eager"), clients_of(model, 3), parts)


@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(st.lists(st.lists(st.integers(2, 24), min_size=1, max_size=10), min_size=1, max_size=4), st.integers(0, 99))
def test_random_shapes_give_the_gradients_of_their_examples(lengths, seed):
    model = tiny()
    parts = [examples(own, "random", seed, k) for k, own in enumerate(lengths)]
    check_scaled_sums(model, tiny(attention="eager"), clients_of(model, len(parts)), parts)


@pytest.mark.parametrize("train", ["lora_A", "lora_B"])
@pytest.mark.parametrize("shape", ["one client, unlike lengths", "clients, unlike lengths"])
def test_one_trained_factor_gives_the_gradients_of_its_examples(train, shape):
    model, parts = tiny(train=train), parts_of(shape)
    module = tiny(train=train, attention="eager")
    check_scaled_sums(model, module, clients_of(model, len(parts)), parts)


@pytest.mark.parametrize("shape", ["one client, one length", "one client, unlike lengths", "clients, unlike lengths"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_whole_models_give_the_gradients_of_their_examples(architecture, shape):
    model, parts = tiny(architecture, rank=0), parts_of(shape)
    check_scaled_sums(model, tiny(architecture, rank=0, attention="eager"), clients_of(model, len(parts)), parts)


@pytest.mark.parametrize("shape", ["clients of one length", "clients, unlike lengths"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma"])
def test_whole_models_stacked_have_the_gradients_of_each_client_alone(architecture, shape):
    model, parts = tiny(architecture, rank=0), parts_of(shape)
    clients = clients_of(model, len(parts))
    found = client_gradients(model, TASK, leaves_of(clients), parts)
    oracle = tiny(architecture, rank=0, attention="eager")
    for own, part, sum_P in zip(clients, parts, found.sum_KP, strict=True):
        assert distance(sum_P, sum(gradient_alone(oracle.module, own, item) for item in part)) < 1e-5


@pytest.mark.parametrize("rank", [0, 2])
def test_losses_and_weights_of_clients_are_theirs(rank):
    model, parts = tiny(rank=rank), parts_of("clients, unlike lengths")
    clients = clients_of(model, 3)
    found = client_gradients(model, TASK, leaves_of(clients), parts)
    alone = [client_gradients(model, TASK, leaves_of([own]), [part]) for own, part in zip(clients, parts, strict=True)]
    torch.testing.assert_close(found.total_K, torch.cat([one.total_K for one in alone]), rtol=1e-5, atol=0)
    assert found.weight_K.tolist() == [sum(len(asked(item)[0]) for item in part) for part in parts]


@pytest.mark.parametrize("rank", [0, 2])
def test_losses_hold_no_graph(rank):
    """A round adds them up, and would keep every pass of it alive."""
    model = tiny(rank=rank)
    found = client_gradients(model, TASK, leaves_of(clients_of(model, 2)), [examples([4, 7]), examples([5])])
    assert not any(tensor.requires_grad for tensor in (found.sum_KP, found.total_K, found.weight_K))


def test_a_bfloat16_base_gives_the_gradients_of_micro_batches_of_one():
    model, parts = tiny(dtype="bfloat16"), parts_of("clients, unlike lengths")
    clients = clients_of(model, 3)
    sum_KP, _ = example_gradients(model, TASK, leaves_of(clients), parts, torch.ones_like)
    for own, part, found in zip(clients, parts, sum_KP, strict=True):
        ones = [client_gradients(model, TASK, leaves_of([own]), [[item]]) for item in part]
        # bfloat16 keeps 8 bits, and matrix products of other shapes round in another order.
        assert distance(found, sum(one.sum_KP[0] / one.weight_K[0] for one in ones)) < 0.02


def test_gradients_over_a_bfloat16_base_are_float32():
    model = tiny(dtype="bfloat16")
    sum_KP, scales_LE = example_gradients(
        model, TASK, leaves_of(clients_of(model, 1)), [examples([5])], torch.ones_like
    )
    assert (sum_KP.dtype, scales_LE.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("shape", ["one client, unlike lengths", "clients, unlike lengths", "groups"])
def test_examples_of_equal_weight_and_factor_one_sum_to_the_clients_gradient(rank, shape):
    model = tiny(rank=rank)
    parts = [examples(lengths, "equal", k, learnt=1) for k, lengths in enumerate(SHAPES[shape])]
    leaves = leaves_of(clients_of(model, len(parts)))
    sum_KP, _ = example_gradients(model, TASK, leaves, parts, torch.ones_like)
    plain = client_gradients(model, TASK, leaves, parts)
    assert distance(sum_KP, plain.sum_KP) < 1e-5


@pytest.mark.parametrize("rank", [0, 2])
def test_norms_are_those_of_each_examples_tensors(rank):
    model, parts, seen = tiny(rank=rank), parts_of("clients, unlike lengths"), []
    clients = clients_of(model, 3)
    example_gradients(
        model, TASK, leaves_of(clients), parts, lambda norms: seen.append(norms) or torch.ones_like(norms)
    )
    norms_LE, layout = torch.cat(seen, dim=1), Layout.of_tree(clients[0])
    alone = mean_gradients_alone(tiny(rank=rank, attention="eager"), clients, parts)
    expected = torch.stack([torch.stack([g[span].norm() for *_, span in layout.spans()]) for g in alone], dim=1)
    assert distance(norms_LE, expected) < 1e-5


def test_factors_scale_each_tensor_of_each_example_exactly():
    """Twice the factor is twice the gradient, bit for bit, as a power of two does not round."""
    model, parts = tiny(), parts_of("clients, unlike lengths")
    leaves = leaves_of(clients_of(model, 3))
    once, twice = (
        example_gradients(model, TASK, leaves, parts, lambda n, f=f: torch.full_like(n, f))[0] for f in (1, 2)
    )
    assert torch.equal(2 * once, twice)


def test_a_factor_of_zero_takes_an_example_out():
    model, parts = tiny(), parts_of("one client, unlike lengths")
    leaves = leaves_of(clients_of(model, 1))

    def without_second(norms_LE):
        return (torch.arange(norms_LE.shape[1]) != 1).float().expand_as(norms_LE)

    found, _ = example_gradients(model, TASK, leaves, parts, without_second)
    expected, _ = example_gradients(model, TASK, leaves, [[parts[0][0], *parts[0][2:]]], torch.ones_like)
    assert distance(found, expected) < 1e-5


def test_mixed_ranks_give_the_gradients_of_models_of_those_ranks():
    """Client 0 has rank 1 of 2 and trains as a model that was built with rank 1 and the same alpha."""
    model, small = tiny(rank=2), tiny(rank=1, attention="eager")
    parts = [examples([4, 9], "ranks", 0), examples([7, 3], "ranks", 1)]
    own = random_params(small, "ranks")
    padded = {name: torch.zeros_like(value) for name, value in model.trainable.items()}
    for name, value in own.items():
        padded[name][: value.shape[0], : value.shape[1]] = value
    fit = Fit.of(Layout.of_tree(model.trainable), 1, torch.device("cpu"))
    model.context.scaling_K = torch.tensor([fit.scaling, 1.0])
    try:
        leaves = leaves_of([padded, random_params(model, "ranks")])
        sum_KP, _ = example_gradients(model, TASK, leaves, parts, torch.ones_like)
    finally:
        model.context.scaling_K = None
    found = Layout.of_tree(model.trainable).tree(sum_KP[0])
    cut = torch.cat([found[name][: v.shape[0], : v.shape[1]].flatten() for name, v in own.items()])
    assert distance(cut, sum(mean_gradients_alone(small, [own], parts[:1]))) < 1e-5
    assert float(sum_KP[0].abs().sum() - cut.abs().sum()) == pytest.approx(0, abs=1e-4)


# ---------------------------------------------------------------------------------------------------- the private step


ONE_STEP = {**PLAIN_SGD, "steps": 1, "batch": 4, "normalise": "examples"}
NO_CLIP = 1e9


def private(lengths, *, local=ONE_STEP, clip=NO_CLIP, noise=0.0, rate=1.0, clipping="global", learnt=None, **model):
    """Work of clients whose examples are protected, with a budget of the test's choice."""
    model, shards = tiny(**model), shards_of(lengths, "private", learnt=learnt)
    budgets = dict.fromkeys(shards, PrivacyBudget(rate, noise, 1e-6, 1000))
    mechanism = Gaussian(unit="example", clip=clip, clipping=clipping)
    return work(model, shards, local=local, budgets=budgets, mechanism=mechanism)


def moves(this, **more):
    """How far each client's parameters moved, over the learning rate: minus the gradient of the step."""
    return {client: row(this, report) / -this.plan.local.lr for client, report in trained(this, **more).items()}


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("normalise", ["tokens", "examples"])
def test_without_noise_and_clip_a_step_is_that_of_plain_sgd(normalise, rank):
    for lengths in ([5, 9, 7, 4], [6, 6, 3, 8]):
        items = private([lengths]).shards["client0"].items
        tokens = sum(int(item.supervised_T[1:].sum()) for item in items)  # nothing predicts the first one
        local = {**ONE_STEP, "normalise": normalise, "tokens_per_example": tokens / 4}
        this = private([lengths], rank=rank, local=local)
        plain = work(this.model, this.shards, local=local)
        assert distance(moves(this)["client0"], moves(plain)["client0"]) < 1e-5


def test_the_two_normalisations_are_different_steps():
    one, other = (moves(private([[5, 9, 7, 4]], local={**ONE_STEP, "normalise": n})) for n in ("tokens", "examples"))
    assert distance(one["client0"] / one["client0"].norm(), other["client0"] / other["client0"].norm()) > 0.01


def test_a_plain_step_over_examples_is_the_mean_of_their_mean_gradients():
    model, shards = tiny(rank=2), shards_of([[5, 9, 7, 4]], "examples")
    alone = mean_gradients_alone(tiny(rank=2, attention="eager"), [model.trainable], [shards["client0"].items])
    assert distance(moves(work(model, shards, local=ONE_STEP))["client0"], sum(alone) / 4) < 1e-5


def test_a_clipped_step_is_the_sum_of_clipped_gradients_over_their_expected_number():
    this = private([[5, 9, 7, 4, 3, 11]], clip=0.5)
    oracle, items = tiny(attention="eager"), this.shards["client0"].items
    alone = mean_gradients_alone(oracle, [this.model.trainable], [items])
    clipped = [g * min(1.0, 0.5 / float(g.norm())) for g in alone]
    assert any(float(g.norm()) > 0.5 for g in alone) and distance(moves(this)["client0"], sum(clipped) / 6) < 1e-5


def test_per_matrix_clipping_bounds_each_matrix():
    this = private([[5, 9, 7]], clip=0.3, clipping="per_matrix")
    oracle, items = tiny(attention="eager"), this.shards["client0"].items
    layout, limit = this.plan.layout, 0.3 / len(this.plan.layout.entries) ** 0.5
    total = torch.zeros(layout.size)
    for gradient_P in mean_gradients_alone(oracle, [this.model.trainable], [items]):
        for *_, span in layout.spans():
            total[span] += gradient_P[span] * min(1.0, limit / float(gradient_P[span].norm()))
    assert distance(moves(this)["client0"], total / 3) < 1e-5


@pytest.mark.parametrize("clipping", ["global", "per_matrix"])
@pytest.mark.parametrize("rank", [0, 2])
def test_no_contribution_is_longer_than_the_clip(clipping, rank):
    model = tiny(rank=rank)
    mechanism = Gaussian(unit="example", clip=0.05, clipping=clipping)
    leaves = leaves_of([model.trainable])
    items = examples([2, 3, 5, 8, 13, 21], "clip")
    norms = [
        float(example_gradients(model, TASK, leaves, [[item]], lambda n: mechanism.scales(n, {}))[0].norm())
        for item in items
    ]
    assert max(norms) <= 0.05 * (1 + 1e-5) and min(norms) > 0.02


def test_micro_batches_of_a_draw_sum_to_the_whole_draw():
    lengths = [[5, 9, 7, 4, 3, 11, 6], [4, 8, 2]]
    one = private(lengths, clip=0.5, local=ONE_STEP | {"batch": 16})
    many = private(lengths, clip=0.5, local=ONE_STEP | {"batch": 2})
    found, expected = moves(many), moves(one)
    assert max(distance(found[client], expected[client]) for client in expected) < 1e-5


def test_accumulation_does_not_change_a_private_step_at_rate_one():
    lengths = [[5, 9, 7, 4]]
    one, more = (private(lengths, local=ONE_STEP | {"batch": 2, "accumulation": n}) for n in (1, 2))
    assert distance(moves(more)["client0"], moves(one)["client0"]) < 1e-6


def test_noise_lies_once_on_the_sum_over_the_expected_number():
    """The noise is drawn again from its names: multiplier times clip times a normal number, over the number."""
    quiet, loud = (
        private([[5, 9, 7, 4]], clip=0.5, noise=noise, local=ONE_STEP | {"batch": 1}) for noise in (0.0, 3.0)
    )
    noise_P = loud.plan.mechanism.source("noise", loud.plan.seed, 0, "client0", 0)(loud.plan.layout.size)
    assert distance(moves(loud)["client0"] - moves(quiet)["client0"], 3.0 * 0.5 * noise_P / 4) < 1e-5


def nobody_drawn(n_examples, rate, names, mechanism):
    return not bool((mechanism.source(*names)(n_examples) < NormalDist().inv_cdf(rate)).any())


def test_a_step_that_draws_no_example_is_noise_alone(monkeypatch):
    this = private([[5, 9, 7, 4]], rate=1e-6, noise=2.0, clip=0.5)
    assert nobody_drawn(4, 1e-6, ("sampling", 0, 0, "client0", 0), this.plan.mechanism)
    noise_P = this.plan.mechanism.source("noise", 0, 0, "client0", 0)(this.plan.layout.size)
    assert distance(moves(this)["client0"], 2.0 * 0.5 * noise_P / (4 * 1e-6)) < 1e-5


def test_a_step_that_draws_no_example_runs_no_forward_pass(monkeypatch):
    this, calls = private([[5, 9, 7, 4]], rate=1e-6, noise=2.0, clip=0.5), []
    monkeypatch.setattr(Sft, "loss", lambda *_: calls.append(1))
    trained(this)
    assert not calls


def test_a_client_that_draws_nothing_leaves_its_company_alone():
    """Client 0 draws nobody, client 1 everybody: its step is the one it takes by itself."""
    this = private([[5, 9], [6, 4, 7]], clip=0.5)
    budgets = {"client0": PrivacyBudget(1e-6, 0.0, 1e-6, 9), "client1": PrivacyBudget(1.0, 0.0, 1e-6, 9)}
    this = replace(this, plan=replace(this.plan, budgets=budgets))
    alone = moves(this, jobs=jobs_of(this, ["client1"]))
    assert distance(moves(this)["client1"], alone["client1"]) < 1e-5


def test_private_clients_together_move_as_each_alone():
    lengths = [[5, 9, 7, 4, 12], [6, 3], [8, 8, 2, 21]]
    this = private(lengths, clip=0.5, noise=0.5, rate=0.6, local=PLAIN_SGD | {"steps": 3, "batch": 2})
    together, alone = trained(this), trained(this, width=1)
    assert max(distance(row(this, together[c]), row(this, alone[c])) for c in alone) < 1e-5


def test_dropout_of_private_clients_does_not_depend_on_who_drew_nothing():
    """At this rate clients now and then draw nothing, or fewer micro-batches than their company."""
    local = PLAIN_SGD | {"steps": 4, "batch": 1}
    this = private([[5, 9], [6, 3, 4], [8]], clip=0.5, rate=0.4, local=local, dropout=0.3)
    together, alone = trained(this), trained(this, width=1)
    assert max(distance(row(this, together[c]), row(this, alone[c])) for c in alone) < 1e-5


def test_a_protected_client_without_a_guard_is_not_trained():
    this = private([[5, 9]])
    with pytest.raises(ConfigError, match="no budget counts what is spent on client 'client0'"):
        trained(replace(this, plan=replace(this.plan, budgets={})))


def test_a_protected_client_tells_neither_its_size_nor_its_loss():
    this = private([[5, 9, 7, 4, 12]], clip=0.5, noise=0.5)
    report = trained(this)["client0"]
    assert (report.weight, report.n_examples, report.loss.weight, report.loss.total) == (1.0, 0, 0.0, 0.0)
