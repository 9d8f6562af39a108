"""Answers in slots against reading everything again for each token, and what stays in memory meanwhile."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.base import rng, tree
from fedloom.models import merging, reading
from fedloom.models.decoder import _closed_up, complete, decode
from fedloom.models.frozen import PackedLinear
from fedloom.models.llama import Llama
from support.clients import random_params, tiny
from support.models import VOCABULARY

CPU = torch.device("cpu")
KINDS = {"slots": ("llama", "packed"), "batch": ("qwen2", "packed"), "alone": ("gpt2", "alone")}


@cache
def model(kind):
    architecture, passage = KINDS[kind]
    return replace(tiny(architecture), passage=passage)


@cache
def owners_params(kind, owner):
    """An owner's factors, large enough that owners answer unlike each other."""
    draw = rng.generator("owner", owner)
    return {name: 0.5 * torch.randn(value.shape, generator=draw) for name, value in model(kind).trainable.items()}


def stacked(kind, owners):
    return tree.stack([owners_params(kind, owner) for owner in range(owners)]) if owners > 1 else owners_params(kind, 0)


def read_again(kind, owner, prompt, n_new, stop=()):
    """Greedy tokens by the whole forward pass over all tokens so far, for each new one."""
    tokens = list(prompt)
    for _ in range(n_new):
        with torch.no_grad():
            inputs = {"input_ids": torch.tensor([tokens]), "use_cache": False}
            logits = torch.func.functional_call(model(kind).module, owners_params(kind, owner), kwargs=inputs).logits
        tokens.append(int(logits[0, -1].argmax()))
        if tokens[-1] in stop:
            break
    return tokens[len(prompt) :]


def some_prompts(seed, n, shared):
    draw = rng.generator("prompts", seed)
    beginning = torch.randint(3, VOCABULARY, (shared,), generator=draw).tolist()
    sizes = torch.randint(1, 9, (n,), generator=draw).tolist()
    return [beginning + torch.randint(3, VOCABULARY, (size,), generator=draw).tolist() for size in sizes]


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    seed=st.integers(0, 10**6),
    owners=st.sampled_from([1, 1, 2, 3]),
    width=st.integers(1, 7),
    slots=st.integers(1, 12),
    shared=st.sampled_from([0, 5, 12]),
    n_new=st.integers(1, 9),
)
def test_answers_are_those_of_reading_everything_again(kind, seed, owners, width, slots, shared, n_new):
    prompts = some_prompts(seed, owners * width, shared)
    stop = {5, 17, 40, 41, 42, 43}
    found = complete(
        model(kind), stacked(kind, owners), prompts, stop=stop, max_new_tokens=n_new, owners=owners, slots=slots
    )
    expected = [read_again(kind, row // width, prompt, n_new, stop) for row, prompt in enumerate(prompts)]
    assert found == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("owners", "slots"), [(2, 6), (3, 9), (3, 1)])
def test_owners_answer_side_by_side_as_each_does_alone(kind, owners, slots):
    prompts, stop = some_prompts(7, owners * 5, 0), {26, 19, 3}
    found = complete(
        model(kind), stacked(kind, owners), prompts, stop=stop, max_new_tokens=8, owners=owners, slots=slots
    )
    assert found == [read_again(kind, row // 5, prompt, 8, stop) for row, prompt in enumerate(prompts)]


def test_prompts_may_be_the_same_and_one_the_beginning_of_all_others():
    prompts = [[*range(5, 20)], [*range(5, 20)], [*range(5, 20), 30, 31]]
    found = complete(model("slots"), owners_params("slots", 0), prompts, stop=(), max_new_tokens=5)
    assert found == [read_again("slots", 0, prompt, 5) for prompt in prompts]


def test_no_prompts_are_no_answers():
    assert complete(model("slots"), owners_params("slots", 0), [], stop=(), max_new_tokens=5) == []


def watched(monkeypatch, prompts, **options):
    """The reader of one call of `decode`, and how many tokens each of its passes read."""
    made, sizes = [], []
    whole, logits = reading.reader, reading._Slots._logits

    def remembered(*args):
        made.append(whole(*args))
        return made[-1]

    def counted(self, tokens, *args):
        sizes.append((len(tokens), max(map(len, tokens))))
        return logits(self, tokens, *args)

    monkeypatch.setattr("fedloom.models.decoder.reader", remembered)
    monkeypatch.setattr(reading._Slots, "_logits", counted)
    list(decode(model("slots"), owners_params("slots", 0), prompts, stop=(), **options))
    return made[0], sizes


def test_memory_is_bounded_by_slots_and_not_by_prompts(monkeypatch):
    found, _ = watched(monkeypatch, some_prompts(0, 50, 0), slots=4, max_new_tokens=6)
    assert found.keys.shape[1] == 4
    assert found.keys.shape[3] <= 8 + 6 + reading._AHEAD


def test_the_beginning_that_all_share_is_read_once(monkeypatch):
    prompts = some_prompts(0, 20, 30)
    _, sizes = watched(monkeypatch, prompts, slots=4, max_new_tokens=3)
    assert sizes[0] == (1, 30)
    assert max(longest for _, longest in sizes[1:]) <= 8


def test_the_next_prompts_come_in_when_a_quarter_of_the_slots_is_free(monkeypatch):
    prompts = [[5, 6, 7 + row] for row in range(16)]
    ends = {row: 2 + row % 8 for row in range(16)}
    order = []
    options = {"slots": 8, "max_new_tokens": 99, "ended": lambda row, tokens: len(tokens) == ends[row]}
    for row, tokens in decode(model("slots"), owners_params("slots", 0), prompts, stop=(), **options):
        order.append(row)
        assert len(tokens) == ends[row]
    assert sorted(order) == list(range(16))
    _, sizes = watched(monkeypatch, prompts, **options)
    came = [rows for rows, longest in sizes if longest > 1]
    assert came[:2] == [8, 2]
    # One batch after the other would read 8 rows 9 times and 8 rows 9 times again.
    assert sum(longest == 1 for _, longest in sizes) < 16


def test_rows_that_are_read_beside_others_have_no_nan(monkeypatch):
    found, _ = watched(monkeypatch, some_prompts(3, 20, 0), slots=3, max_new_tokens=4)
    assert bool(found.keys.isfinite().all() and found.values.isfinite().all())


@given(stays=st.lists(st.booleans(), max_size=12))
def test_places_close_up_with_the_fewest_moves(stays):
    kept = _closed_up(stays)
    assert sorted(kept) == [place for place, stay in enumerate(stays) if stay]
    assert all(old == new or (old >= len(kept) and not stays[new]) for new, old in enumerate(kept))


# ------------------------------------------------------------------------------------------------- a copy for reading


def logits_of(module, params, tokens_BT):
    with torch.no_grad():
        return torch.func.functional_call(module, params, kwargs={"input_ids": tokens_BT}).logits


def test_a_copy_for_reading_has_the_adapters_in_its_weights():
    whole = model("slots")
    params = random_params(whole, "copy")
    made = merging.for_reading(whole.module, params, None)
    tokens_BT = torch.tensor(some_prompts(1, 1, 20))
    found = logits_of(made, {}, tokens_BT)
    assert torch.allclose(found, logits_of(whole.module, params, tokens_BT), atol=1e-5)
    assert not torch.allclose(found, logits_of(whole.module, whole.trainable, tokens_BT), atol=1e-3)
    assert not any(name.endswith("lora_A") for name, _ in made.named_parameters())


def test_a_copy_for_reading_scales_as_the_owner_does():
    whole = model("slots")
    params = random_params(whole, "scaled")
    halved = {n: t * (0.5 if n.endswith("lora_B") else 1.0) for n, t in params.items()}
    found = merging.for_reading(whole.module, params, torch.tensor([0.5]))
    expected = merging.for_reading(whole.module, halved, None)
    tokens_BT = torch.tensor(some_prompts(2, 1, 20))
    assert torch.allclose(logits_of(found, {}, tokens_BT), logits_of(expected, {}, tokens_BT), atol=1e-5)


def test_in_bfloat16_an_adapter_too_small_for_its_weight_still_counts():
    whole = tiny(dtype="bfloat16")
    draw = rng.generator("small")
    params = {name: 0.1 * torch.randn(tensor.shape, generator=draw) for name, tensor in whole.trainable.items()}
    none = {n: t * (0 if n.endswith("lora_B") else 1) for n, t in params.items()}
    tokens_BT = torch.tensor(some_prompts(3, 1, 20))
    found = logits_of(merging.for_reading(whole.module, params, None), {}, tokens_BT).float()
    expected = logits_of(whole.module, params, tokens_BT).float()
    without = logits_of(whole.module, none, tokens_BT).float()
    assert float((found - expected).norm()) < 0.2 * float((expected - without).norm())


def test_the_module_that_trains_is_left_as_it_is():
    whole = model("slots")
    before = {name: tensor.clone() for name, tensor in whole.module.state_dict().items()}
    complete(whole, random_params(whole, "left"), some_prompts(1, 3, 0), stop=(), max_new_tokens=3)
    after = whole.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("most", [0, 1 << 30])
def test_a_model_too_large_for_a_copy_answers_alike(most, monkeypatch):
    monkeypatch.setattr(reading, "_MOST_COPIED", most)
    prompts = some_prompts(4, 5, 12)
    found = complete(model("slots"), owners_params("slots", 0), prompts, stop=(), max_new_tokens=8, slots=2)
    assert found == [read_again("slots", 0, prompt, 8) for prompt in prompts]


def test_weights_are_laid_out_where_that_is_fast(monkeypatch):
    monkeypatch.setattr("fedloom.base.products._LEAST_PACKED", 1)
    monkeypatch.setattr("fedloom.base.products.is_fast", lambda: True)
    whole = model("slots")
    made = merging.for_reading(whole.module, whole.trainable, None)
    assert isinstance(made, Llama)
    assert isinstance(made.model.layers[0].mlp.gate_up_proj, PackedLinear)
    tokens_BT = torch.tensor(some_prompts(5, 1, 20))
    expected = logits_of(whole.module, whole.trainable, tokens_BT)
    assert torch.allclose(logits_of(made, {}, tokens_BT), expected, atol=1e-5)
