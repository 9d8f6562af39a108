"""Packed batches: what they hold, that packing equals no packing, and that no example reaches another."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AttentionInterface

from fedloom.base import rng, tree
from fedloom.base.errors import ModelError
from fedloom.contracts.language import Encoded
from fedloom.contracts.model import _sums_of_chosen, sums_by
from fedloom.federated.kernels import client_gradients
from fedloom.models import packing
from fedloom.models.attention import _Short, packed_attention, register
from fedloom.models.lora import lora_layers
from fedloom.models.packing import LEAST_SLACK, pack
from support.clients import (
    CPU,
    TASK,
    asked,
    distance,
    examples,
    gradient_alone,
    logits_alone,
    loss_alone,
    random_params,
    tiny,
)
from support.models import ARCHITECTURES, VOCABULARY

SPARED = packing._SPARED
# Lengths of the examples of each client; see `few_are_a_group`.
CASES = {
    "one example": [[7]],
    "ties": [[6, 6, 6, 6]],
    "all unlike": [[3, 11, 2, 7, 5]],
    "one token": [[1, 6, 1, 4]],
    "two groups": [[20, 6] * 4 + [24, 5, 22, 4] * 2],
    "three groups with ties": [[40, 20, 9] * 8],
    "one far longer": [[50] + [3, 4, 5, 2] * 4],
    "clients of unequal parts": [[4, 17], [3], [9, 9, 2, 1]],
    "clients with groups": [[20, 6] * 6, [5], [24, 4, 4] * 3],
}


@pytest.fixture(scope="module", autouse=True)
def few_are_a_group():
    """Of models as small as these no group would be worth a call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_SPARED", {**SPARED, "cpu": 100 * packing._WIDTH})
        yield


def padded(parts):
    """Pack as a model does that pads however unlike its clients' parts are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "LEAST_SLACK", 10**9)
        return pack(parts, CPU)


def parts_of(case):
    return [examples(lengths, case, client) for client, lengths in enumerate(CASES[case])]


def clients_params(model, n_clients):
    return [random_params(model, "client", k) for k in range(n_clients)]


def packed_logits(model, params, parts):
    model.context.batch = batch = TASK.collate(parts, model)
    return model.token_logits(params, batch)


def furthest(found_SV, expected_SV):
    """The largest distance of the logits at one place."""
    return float(((found_SV - expected_SV).norm(dim=1) / expected_SV.norm(dim=1)).max())


# ----------------------------------------------------------------------------------------------- what a batch holds


@pytest.fixture(scope="module")
def by_hand():
    """Two clients: examples of three and two tokens, and one of two tokens."""
    first = Encoded(torch.tensor([11, 12, 13]).int(), torch.tensor([True, False, True]))
    second = Encoded(torch.tensor([21, 22]).int(), torch.tensor([False, True]))
    third = Encoded(torch.tensor([31, 32]).int(), torch.tensor([True, True]))
    return padded([[first, second], [third]])


BY_HAND = {
    "tokens_N": [11, 12, 13, 21, 22, 31, 32, 0, 0, 0],
    "positions_N": [0, 1, 2, 0, 1, 0, 1, 0, 0, 0],
    "client_E": [0, 0, 1],
    "back_E": [0, 1, 2],
    "place_M": [0, 1, 2, 3, 4, 0, 5, 6, 0],
    "home_N": [0, 1, 2, 3, 4, 6, 7, 0, 0, 0],
    "behind_B": [5, 8],
    "padding_Q": [7, 8, 9],
    "asked_S": [1, 3, 5],
    "targets_S": [13, 22, 32],
    "example_S": [0, 1, 2],
}


@pytest.mark.parametrize("field", BY_HAND)
def test_a_small_batch_is_the_one_written_by_hand(by_hand, field):
    assert vars(by_hand)[field].tolist() == BY_HAND[field]


def test_a_small_batch_has_the_parts_and_groups_written_by_hand(by_hand):
    assert (by_hand.parts, by_hand.groups, by_hand.even) == ((5, 2), ((3, 3),), False)


def test_examples_of_one_length_without_padding_are_even():
    assert pack([examples([4, 4]), examples([4, 4], "other")], CPU).even


def entries(lengths, groups):
    """Numbers of [T, T] that attention computes over groups that hold the lengths in their order."""
    assert sum(n for n, _ in groups) == len(lengths)
    at = [sum(n for n, _ in groups[:k]) for k in range(len(groups))]
    assert all(lengths[start] == longest for start, (_, longest) in zip(at, groups, strict=True))
    return sum(n * longest**2 for n, longest in groups)


@pytest.mark.parametrize(
    ("lengths", "least", "groups"),
    [
        ([9, 9, 6, 6], 89, ((2, 9), (2, 6))),  # 2 (81 - 36) = 90 numbers are spared
        ([9, 9, 6, 6], 90, ((4, 9),)),
        ([40, 20, 9], 600, ((1, 40), (2, 20))),  # 319 more would be spared by a third
        ([40, 20, 9], 300, ((1, 40), (1, 20), (1, 9))),
        ([5], 0, ((1, 5),)),
        ([4, 4, 4], 0, ((3, 4),)),
    ],
)
def test_a_group_is_parted_where_attention_spares_more_than_a_call_costs(lengths, least, groups):
    assert packing._groups(lengths, least) == groups


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12), least=st.integers(0, 4000))
def test_no_further_parting_of_a_group_spares_more_than_a_call_costs(lengths, least):
    lengths = sorted(lengths, reverse=True)
    groups = packing._groups(lengths, least)
    whole, start = entries(lengths, groups), 0
    for place, (n, longest) in enumerate(groups):
        for at in range(1, n):
            parts = (*groups[:place], (at, longest), (n - at, lengths[start + at]), *groups[place + 1 :])
            assert whole - entries(lengths, parts) <= least
        start += n


def test_a_wide_model_parts_sooner(monkeypatch):
    monkeypatch.setattr(packing, "_SPARED", SPARED)
    items = [examples([60, 40])]
    assert [len(pack(items, CPU, width=width).groups) for width in (128, 2048)] == [1, 2]


def test_the_first_token_of_an_example_is_never_asked_for():
    items = [replace(item, supervised_T=torch.ones_like(item.supervised_T)) for item in examples([1, 3, 5])]
    batch = pack([items], CPU)
    assert batch.targets_S.tolist() == [token for item in items for token in item.tokens_T[1:].tolist()]


some_clients = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=20), min_size=1, max_size=4)
often = settings(max_examples=40, deadline=None, derandomize=True, database=None)


@often
@given(lengths=some_clients)
def test_every_real_token_comes_back_from_side_by_side(lengths):
    batch = padded([examples(own, k) for k, own in enumerate(lengths)])
    real_N = torch.ones(len(batch.tokens_N), dtype=torch.bool).index_fill(0, batch.padding_Q, 0)
    assert torch.equal(batch.place_M[batch.home_N[real_N]], real_N.nonzero().flatten())


@often
@given(lengths=some_clients)
def test_a_line_side_by_side_holds_one_example_and_zeros(lengths):
    items = [examples(own, k) for k, own in enumerate(lengths)]
    batch = padded(items)
    everyone, lines, start = [item for part in items for item in part], [], 0
    for n_examples, length in batch.groups:
        lines += batch.tokens_N[batch.place_M][start : start + n_examples * length].view(n_examples, length).tolist()
        start += n_examples * length
    found = [lines[place][: len(item.tokens_T)] for item, place in zip(everyone, batch.back_E.tolist(), strict=True)]
    assert found == [item.tokens_T.tolist() for item in everyone]


@often
@given(lengths=some_clients)
def test_positions_start_anew_in_each_example(lengths):
    batch = padded([examples(own, k) for k, own in enumerate(lengths)])
    longest = max(map(sum, lengths))
    expected = [[t for length in own for t in range(length)] for own in lengths]
    assert batch.positions_N.tolist() == [t for own in expected for t in [*own, *[0] * (longest - len(own))]]


@often
@given(lengths=some_clients)
def test_a_target_is_the_token_behind_the_place_that_is_asked(lengths):
    items = [examples(own, k) for k, own in enumerate(lengths)]
    batch = padded(items)
    assert torch.equal(batch.tokens_N[batch.asked_S + 1], batch.targets_S)
    assert batch.targets_S.tolist() == [t for part in items for item in part for t in asked(item)[1].tolist()]


# -------------------------------------------------------------------------------------------- packing equals no packing


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_logits_are_those_of_each_example_alone(architecture, case):
    model, oracle, parts = tiny(architecture), tiny(architecture, attention="eager"), parts_of(case)
    clients = clients_params(model, len(parts))
    assert model.passage == "packed"  # a wrong window would be found on the twin, and another way taken
    expected = [
        logits_alone(oracle.module, own, item) for own, part in zip(clients, parts, strict=True) for item in part
    ]
    assert furthest(packed_logits(model, tree.stack(clients), parts), torch.cat(expected)) < 1e-5


@pytest.mark.parametrize("case", ["clients of unequal parts", "clients with groups"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_gradients_are_those_of_each_example_alone(architecture, case):
    model, oracle, parts = tiny(architecture), tiny(architecture, attention="eager"), parts_of(case)
    clients = clients_params(model, len(parts))
    leaves = {name: leaf.requires_grad_() for name, leaf in tree.stack(clients).items()}
    found = client_gradients(model, TASK, leaves, parts)
    for own, part, sum_P in zip(clients, parts, found.sum_KP, strict=True):
        expected = sum(gradient_alone(oracle.module, own, item) for item in part)
        assert distance(sum_P, expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_in_float64_packed_gradients_are_those_of_each_example_alone_to_the_last_digits(architecture, case):
    """In float32 a mistake that touches little could hide behind rounding; the eager oracle rounds to float32."""
    model, oracle, parts = in_float64(tiny(architecture)), tiny(architecture, attention="sdpa"), parts_of(case)
    module = deepcopy(oracle.module).double()
    clients = [{name: t.double() for name, t in own.items()} for own in clients_params(oracle, len(parts))]
    leaves = {name: leaf.requires_grad_() for name, leaf in tree.stack(clients).items()}
    found = client_gradients(model, TASK, leaves, parts)
    for own, part, sum_P in zip(clients, parts, found.sum_KP, strict=True):
        assert distance(sum_P, sum(gradient_alone(module, own, item) for item in part)) < 1e-12


def in_float64(model):
    module = deepcopy(model.module).double()
    context = next(iter(lora_layers(module).values())).context  # the copy's layers read the copy of the context
    return replace(model, module=module, context=context, head=None)


@pytest.mark.parametrize("case", ["clients of unequal parts", "clients with groups"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parts_with_and_without_padding_have_the_same_gradients(architecture, case, monkeypatch):
    model, parts, sums = tiny(architecture), parts_of(case), []
    leaves = {name: t.requires_grad_() for name, t in tree.stack(clients_params(model, len(parts))).items()}
    for chosen in (0, 10**9):
        monkeypatch.setattr(packing, "LEAST_SLACK", chosen)
        monkeypatch.setattr(packing, "_WIDTH", model.width)
        padding = len(TASK.collate(parts, model).padding_Q)
        assert (padding == 0) == (chosen == 0)
        sums.append(client_gradients(model, TASK, leaves, parts).sum_KP)
    assert distance(*sums) < 1e-5


@pytest.mark.parametrize(
    ("lengths", "n_tokens"),
    [([[30, 30], [31], [1, 2]], 3 * 60), ([[64], [1]], 2 * 64), ([[65], [1]], 66), ([[64, 3], [2], [2], [2]], 73)],
)
def test_parts_are_padded_where_that_adds_less_than_32_tokens_to_each(lengths, n_tokens):
    assert len(pack([examples(own) for own in lengths], CPU).tokens_N) == n_tokens


@pytest.mark.parametrize("case", ["all unlike", "two groups", "clients with groups"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_whole_models_have_the_packed_gradients_of_each_example_alone(architecture, case):
    model, oracle = tiny(architecture, rank=0), tiny(architecture, rank=0, attention="eager")
    part = parts_of(case)[0]
    params = random_params(model, "whole")
    leaves = {name: leaf[None].requires_grad_() for name, leaf in params.items()}
    found = client_gradients(model, TASK, leaves, [part]).sum_KP[0]
    expected = sum(gradient_alone(oracle.module, params, item) for item in part)
    assert distance(found, expected) < 1e-5


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("case", ["all unlike", "two groups", "clients of unequal parts"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_attention_agrees_with_a_mask_over_the_whole_row(architecture, case, attention):
    model, other, parts = tiny(architecture), tiny(architecture, attention=attention), parts_of(case)
    params = tree.stack(clients_params(model, len(parts)))
    assert furthest(packed_logits(model, params, parts), packed_logits(other, params, parts)) < 1e-5


# ----------------------------------------------------------------------------------------------------- sliding windows

WINDOW = {"sliding_window": 4}


@pytest.mark.parametrize("case", ["all unlike", "two groups", "clients of unequal parts"])
def test_a_window_shorter_than_the_examples_is_that_of_transformers(case):
    model, oracle, parts = tiny("mistral", **WINDOW), tiny("mistral", attention="eager", **WINDOW), parts_of(case)
    clients = clients_params(model, len(parts))
    assert model.passage == "packed"  # a wrong window would be found on the twin, and another way taken
    expected = [
        logits_alone(oracle.module, own, item) for own, part in zip(clients, parts, strict=True) for item in part
    ]
    assert furthest(packed_logits(model, tree.stack(clients), parts), torch.cat(expected)) < 1e-5


def test_gradients_through_a_window_are_those_of_transformers():
    model, oracle = tiny("mistral", **WINDOW), tiny("mistral", attention="eager", **WINDOW)
    (part,), params = parts_of("two groups"), random_params(tiny("mistral", **WINDOW), "window")
    leaves = {name: leaf[None].requires_grad_() for name, leaf in params.items()}
    expected = sum(gradient_alone(oracle.module, params, item) for item in part)
    assert distance(client_gradients(model, TASK, leaves, [part]).sum_KP[0], expected) < 1e-5


def test_a_window_changes_the_logits_of_longer_examples():
    item = examples([12])
    narrow, wide = (
        packed_logits(tiny("mistral", **more), tree.stack([tiny("mistral").trainable]), [item]) for more in (WINDOW, {})
    )
    assert distance(narrow, wide) > 1e-3


def test_a_window_leaves_examples_that_fit_into_it_alone():
    item = examples([4, 3, 4])
    narrow, wide = (
        packed_logits(tiny("mistral", **more), tree.stack([tiny("mistral").trainable]), [item]) for more in (WINDOW, {})
    )
    assert torch.equal(narrow, wide)


# ----------------------------------------------------------------------------------------- nothing reaches another one


def losses(model, params, parts):
    model.context.batch = batch = TASK.collate(parts, model)
    return TASK.loss(model, params, batch).total_B


@pytest.mark.parametrize("case", ["all unlike", "two groups", "clients with groups"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_other_tokens_in_one_example_leave_the_losses_of_the_others_bitwise(architecture, case):
    model, parts = tiny(architecture), parts_of(case)
    params = tree.stack(clients_params(model, len(parts)))
    before = losses(model, params, parts)
    changed = parts[0][1]
    tokens_T = 3 + (changed.tokens_T + 7) % (VOCABULARY - 4)
    parts[0][1] = replace(changed, tokens_T=tokens_T)
    moved = (losses(model, params, parts) != before).nonzero().flatten().tolist()
    assert moved == [1]


def test_an_example_has_the_loss_it_has_alone():
    model = tiny()
    params, items = tree.stack([model.trainable]), parts_of("all unlike")[0]
    alone = torch.cat([losses(model, params, [[item]]) for item in items])
    torch.testing.assert_close(losses(model, params, [items]), alone, rtol=1e-5, atol=0)


def test_a_supervised_token_that_is_shifted_by_one_would_show():
    model = tiny()
    (item,) = examples([12])
    late = replace(item, supervised_T=item.supervised_T.roll(1))
    found = losses(model, tree.stack([model.trainable]), [[item]])[0]
    right, wrong = (loss_alone(tiny(attention="eager").module, model.trainable, one) for one in (item, late))
    assert abs(found - right) < 1e-4 * abs(right - wrong)


def attention_inputs(batch, n_heads=4, n_groups=2, width=8):
    draw = torch.Generator().manual_seed(3)
    return [
        torch.randn(1, heads, len(batch.tokens_N), width, generator=draw).requires_grad_()
        for heads in (n_heads, n_groups, n_groups)
    ]


@pytest.mark.parametrize("case", ["clients of unequal parts", "clients with groups"])
def test_padding_gets_a_gradient_of_zero(case):
    batch = padded(parts_of(case))
    states = attention_inputs(batch)
    out = packed_attention(*states, batch)
    grads = torch.autograd.grad(out.square().sum(), states)
    assert all(float(grad[:, :, batch.padding_Q].abs().sum()) == 0 for grad in grads)


@pytest.mark.parametrize("case", ["clients of unequal parts", "clients with groups"])
def test_a_gradient_at_padding_goes_nowhere(case):
    batch = padded(parts_of(case))
    states = attention_inputs(batch)
    out = packed_attention(*states, batch)
    grads = torch.autograd.grad(out[:, batch.padding_Q].square().sum(), states)
    assert all(float(grad.abs().sum()) == 0 for grad in grads)


def test_what_stands_at_padding_does_not_matter():
    batch = padded(parts_of("clients with groups"))
    states = [state.detach() for state in attention_inputs(batch)]
    real_N = torch.ones(len(batch.tokens_N), dtype=torch.bool).index_fill(0, batch.padding_Q, 0)
    before = packed_attention(*states, batch)
    for state in states:
        state[:, :, batch.padding_Q] = 1e3
    after = packed_attention(*states, batch)
    assert torch.equal(before[:, real_N], after[:, real_N])


# ------------------------------------------------------------------------------------------------ what is refused


def test_attention_with_sinks_is_refused():
    batch = pack([examples([3])], CPU)
    register()
    with pytest.raises(ModelError, match="not plain softmax"):
        AttentionInterface()["packed"](
            torch.nn.Identity(), *attention_inputs(batch), None, packed=batch, s_aux=torch.zeros(4)
        )


def test_a_wide_model_is_spared_padding_that_a_narrow_one_bears():
    assert tuple(map(packing._least_slack, (128, 256, 1024))) == (LEAST_SLACK, LEAST_SLACK // 4, 1)


def test_sums_of_chosen_values_are_those_by_scattered_additions():
    """What a GPU does, where scattered additions come in any order; done here on the CPU."""
    values = torch.randn(9, 9, generator=rng.generator("sums"), dtype=torch.float64, requires_grad=True)
    index = torch.tensor([0, 0, 3, 1, 1, 1, 3, 4, 4])
    ours, chosen = sums_by(values, index, 5), _sums_of_chosen(values, index, 5)
    torch.testing.assert_close(chosen, ours)
    slopes = [torch.autograd.grad(one.square().sum(), values)[0] for one in (ours, chosen)]
    torch.testing.assert_close(slopes[0], slopes[1])


@pytest.mark.parametrize(
    ("cached", "queries", "groups"), [(1, 170, 4), (3 * 13 * 13, 5, 2), (2**21, 3, 1), (2**21, 170, 2)]
)
def test_short_rows_attend_as_the_fused_kernel_has_it_however_many_pass_at_a_time(monkeypatch, cached, queries, groups):
    """In float64, for which the kernel of bfloat16 is as right: an independent computation of the same sums."""
    monkeypatch.setattr("fedloom.models.attention._CACHED", cached)
    monkeypatch.setattr("fedloom.models.attention._QUERIES", queries)
    draw, double = rng.generator("short rows"), torch.float64
    query, key, value, grad = (
        torch.randn(2, heads, 13, 8, generator=draw, dtype=double) for heads in (4, groups, groups, 4)
    )
    leaves = [[part.clone().requires_grad_() for part in (query, key, value)] for _ in range(2)]
    ours = _Short.apply(*leaves[0], 0.3)
    theirs = torch.nn.functional.scaled_dot_product_attention(*leaves[1], is_causal=True, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(ours, theirs)
    for out in (ours, theirs):
        out.backward(grad)
    for one, other in zip(*leaves, strict=True):
        torch.testing.assert_close(one.grad, other.grad)
