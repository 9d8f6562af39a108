"""The low-rank layers: what they compute, stacked and alone, what they replace, how they start, when they drop."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from fedloom.base import rng, tree
from fedloom.base.errors import ModelError
from fedloom.contracts.federated import ForwardContext
from fedloom.models.lora import LoraLinear, factor_names, install, lora_layers
from support.models import ARCHITECTURES, bare_model, some_tokens

LINEAR_ENDS = {
    "llama": "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj",
    "qwen2": "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj",
    "mistral": "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj",
    "gemma": "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj",
    "gpt2": "c_attn c_proj c_fc c_proj",
}


def adapted(architecture="llama", *, targets=(), rank=3, dropout=0.0, seed=0, context=None, module=None):
    module = bare_model(architecture) if module is None else module
    install(
        module,
        targets=targets,
        rank=rank,
        alpha=6.0,
        dropout=dropout,
        seed=seed,
        context=ForwardContext() if context is None else context,
    )
    return module


def factors(module, *names: str | int):
    draw = rng.generator("factors", *names)
    return {name: torch.randn(module.get_parameter(name).shape, generator=draw) * 0.2 for name in factor_names(module)}


def logits(module, params, tokens):
    return functional_call(module, params, (), {"input_ids": tokens, "use_cache": False}).logits


def gradient(module, params, tokens):
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in params.items()}
    total = logits(module, leaves, tokens).square().sum()
    return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))


def assert_close(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name in expected:
        assert (found[name] - expected[name]).norm() <= tolerance * expected[name].norm(), name


@pytest.mark.parametrize("base", [nn.Linear(5, 4), Conv1D(4, 5)], ids=["linear", "conv1d"])
def test_layer_adds_the_scaled_product_of_its_factors(base):
    layer = LoraLinear(base, rank=2, alpha=6.0, dropout=0.0, context=ForwardContext())
    a_RD, b_OR, x_BTD = torch.randn(2, 5), torch.randn(4, 2), torch.randn(3, 6, 5)
    y_BTO = functional_call(layer, {"lora_A": a_RD, "lora_B": b_OR}, (x_BTD,))
    torch.testing.assert_close(y_BTO, base(x_BTD) + 6.0 / 2 * x_BTD @ (b_OR @ a_RD).T)


@pytest.mark.parametrize("base", [nn.Linear(5, 4), Conv1D(4, 5)], ids=["linear", "conv1d"])
def test_delta_added_to_the_base_weight_is_the_layer(base):
    layer = LoraLinear(base, rank=2, alpha=6.0, dropout=0.0, context=ForwardContext())
    with torch.no_grad():
        layer.lora_A.normal_()
        layer.lora_B.normal_()
    x_BTD = torch.randn(3, 6, 5)
    merged = functional_call(base, {"weight": base.weight + layer.delta()}, (x_BTD,))
    torch.testing.assert_close(merged, layer(x_BTD))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_stacked_clients_have_the_logits_of_each_alone(architecture):
    module = adapted(architecture)
    clients = [factors(module, k) for k in range(3)]
    tokens = some_tokens(6)
    alone = torch.cat([logits(module, params, tokens[2 * k : 2 * k + 2]) for k, params in enumerate(clients)])
    torch.testing.assert_close(logits(module, tree.stack(clients), tokens), alone)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_stacked_clients_have_the_gradients_of_each_alone(architecture):
    module = adapted(architecture)
    clients = [factors(module, k) for k in range(3)]
    tokens = some_tokens(6)
    alone = [gradient(module, params, tokens[2 * k : 2 * k + 2]) for k, params in enumerate(clients)]
    assert_close(gradient(module, tree.stack(clients), tokens), tree.stack(alone))


def test_clients_may_stack_one_factor_and_share_the_other():
    module = adapted()
    shared = factors(module, "shared")
    clients = [{n: t for n, t in factors(module, k).items() if n.endswith("lora_B")} for k in range(2)]
    tokens = some_tokens(4)
    alone = torch.cat([logits(module, shared | own, tokens[2 * k : 2 * k + 2]) for k, own in enumerate(clients)])
    torch.testing.assert_close(logits(module, shared | tree.stack(clients), tokens), alone)


def test_a_batch_that_does_not_divide_into_the_clients_is_refused():
    module = adapted()
    stacked = tree.stack([factors(module, k) for k in range(2)])
    with pytest.raises(ModelError, match="a batch of 21 tokens does not divide into 2 stacked clients"):
        logits(module, stacked, some_tokens(3))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_default_targets_are_all_linear_layers_of_the_blocks(architecture):
    ends = sorted(name.rpartition(".")[2] for name in lora_layers(adapted(architecture)))
    assert ends == sorted(2 * LINEAR_ENDS[architecture].split())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_fresh_adapter_leaves_the_logits_as_they_were(architecture):
    tokens = some_tokens()
    expected = bare_model(architecture)(tokens, use_cache=False).logits
    assert torch.equal(adapted(architecture)(tokens, use_cache=False).logits, expected)


def test_targets_select_by_the_end_of_a_name():
    found = lora_layers(adapted(targets=("q_proj", "v_proj")))
    assert [name.removeprefix("model.layers.") for name in found] == [
        "0.self_attn.q_proj",
        "0.self_attn.v_proj",
        "1.self_attn.q_proj",
        "1.self_attn.v_proj",
    ]


def test_targets_select_by_several_parts_of_a_name():
    assert list(lora_layers(adapted("gpt2", targets=("mlp.c_proj",)))) == [
        "transformer.h.0.mlp.c_proj",
        "transformer.h.1.mlp.c_proj",
    ]


def test_a_target_that_matches_nothing_is_refused_with_what_there_is():
    found = r"lora_targets: 'q_prj' matches no linear layer. Did you mean 'q_proj'\? Known: down_proj, gate_proj"
    with pytest.raises(ModelError, match=found):
        adapted(targets=("v_proj", "q_prj"))


def test_a_part_of_a_word_is_no_end_of_a_name():
    with pytest.raises(ModelError, match="'proj' matches no linear layer"):
        adapted(targets=("proj",))


def test_a_model_without_blocks_is_refused():
    with pytest.raises(ModelError, match=r"no linear layer lies in the model's blocks; name some. Known: 0"):
        adapted(module=nn.Sequential(nn.Linear(2, 2)))


def test_only_linear_layers_take_factors():
    with pytest.raises(ModelError, match=r"a low-rank layer on Embedding: allowed are nn.Linear and Conv1D"):
        LoraLinear(nn.Embedding(3, 2), rank=1, alpha=1.0, dropout=0.0, context=ForwardContext())


def test_an_adapter_on_a_tied_head_keeps_it_tied():
    module = adapted(targets=("lm_head",))
    assert module.get_parameter("lm_head.base.weight") is module.get_parameter("model.embed_tokens.weight")


def test_every_parameter_is_frozen():
    assert [name for name, parameter in adapted().named_parameters() if parameter.requires_grad] == []


def test_equal_seeds_start_equal_factors():
    assert tree.digest(dict(adapted(seed=4).named_parameters())) == tree.digest(
        dict(adapted(seed=4).named_parameters())
    )


def test_other_seeds_start_other_factors():
    first, second = (adapted(seed=seed).get_parameter("model.layers.0.mlp.up_proj.lora_A") for seed in (1, 2))
    assert not torch.equal(first, second)


def test_layers_of_one_shape_start_differently():
    module = adapted()
    first, second = (module.get_parameter(f"model.layers.{layer}.mlp.up_proj.lora_A") for layer in (0, 1))
    assert not torch.equal(first, second)


def test_a_starts_uniform_within_one_over_root_width():
    a_RD = adapted(rank=64).get_parameter("model.layers.0.mlp.down_proj.lora_A")
    bound = 1 / math.sqrt(48)
    # Uniform: the standard deviation is bound / sqrt 3; 3,072 numbers put it within 5 %.
    assert a_RD.abs().max() <= bound
    assert a_RD.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_b_starts_at_zero():
    module = adapted()
    assert sum(module.get_parameter(n).abs().sum().item() for n in factor_names(module) if n.endswith("B")) == 0


def test_installing_leaves_the_global_generator_alone():
    module, before = bare_model("llama"), torch.get_rng_state()
    adapted(module=module)
    assert torch.equal(torch.get_rng_state(), before)


def test_factors_are_float32_on_a_bfloat16_base():
    module = adapted(module=bare_model("llama").bfloat16())
    assert {module.get_parameter(name).dtype for name in factor_names(module)} == {torch.float32}


def test_bfloat16_base_gives_nearly_the_logits_of_float32():
    exact, rough, tokens = adapted(), adapted(module=bare_model("llama").bfloat16()), some_tokens()
    params = factors(exact)
    expected, found = logits(exact, params, tokens), logits(rough, params, tokens)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() < 0.03 * expected.norm()


def test_dropout_without_a_generator_is_absent():
    with_dropout, without, tokens = adapted(dropout=0.5), adapted(), some_tokens()
    params = factors(without)
    assert torch.equal(logits(with_dropout, params, tokens), logits(without, params, tokens))


def dropped(*names: str | int):
    context = ForwardContext()
    module = adapted(dropout=0.5, context=context)
    context.generators = (rng.generator(*names),)
    return logits(module, factors(module), some_tokens())


def test_dropout_repeats_with_its_seed():
    assert torch.equal(dropped("dropout", 1), dropped("dropout", 1))


def test_dropout_differs_by_seed():
    assert not torch.equal(dropped("dropout", 1), dropped("dropout", 2))


def test_dropout_ignores_the_global_generator():
    before = torch.get_rng_state()
    dropped("dropout", 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_keeps_its_share_and_scales_the_rest():
    context = ForwardContext(generators=(rng.generator("d"),))
    layer = LoraLinear(nn.Linear(50, 50, bias=False), rank=50, alpha=50.0, dropout=0.2, context=context)
    identity = {"base.weight": torch.zeros(50, 50), "lora_A": torch.eye(50), "lora_B": torch.eye(50)}
    kept = functional_call(layer, identity, (torch.ones(10, 20, 50),))
    # 10,000 draws of probability 0.8: a standard deviation of 0.004 in the share.
    assert kept.unique().tolist() == pytest.approx([0.0, 1.25])
    assert (kept > 0).float().mean().item() == pytest.approx(0.8, abs=0.02)


def kept_by(name, seed):
    context = ForwardContext(seeds=(seed,))
    layer = LoraLinear(nn.Linear(50, 50, bias=False), rank=50, alpha=50.0, dropout=0.5, context=context, name=name)
    identity = {"base.weight": torch.zeros(50, 50), "lora_A": torch.eye(50), "lora_B": torch.eye(50)}
    return functional_call(layer, identity, (torch.ones(1, 20, 50),)) > 0


def test_seeds_give_each_layer_draws_of_its_own_whoever_drew_before():
    first = kept_by("layers.0.q_proj", (0, "anna"))
    assert torch.equal(kept_by("layers.0.q_proj", (0, "anna")), first)
    for name, seed in (("layers.1.q_proj", (0, "anna")), ("layers.0.q_proj", (1, "anna"))):
        # Half of all places agree by chance, with a standard deviation of 0.016.
        assert (kept_by(name, seed) == first).float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_layers_are_installed_with_their_names():
    assert all(layer.name == name for name, layer in lora_layers(adapted()).items())
