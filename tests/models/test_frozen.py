"""Layers that do not learn compute what the layers they replace compute, gradients included."""

import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from fedloom.base import rng
from fedloom.models.attention import _Short
from fedloom.models.frozen import FrozenLinear, FrozenNorm, freeze
from support.clients import tiny


def drawn(*shape, name="x"):
    return torch.randn(shape, generator=rng.generator("frozen", name, *shape))


def norm_of(kind=LlamaRMSNorm, width=24, eps=1e-5, dtype=torch.float32):
    layer = kind(width, eps=eps).requires_grad_(False).to(dtype)
    layer.weight.copy_(1 + 0.3 * drawn(width, name="weight"))
    return nn.Sequential(layer)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
@pytest.mark.parametrize("kind", [LlamaRMSNorm, Qwen2RMSNorm])
def test_a_norm_and_its_gradient_are_those_of_transformers(kind, scale):
    module = norm_of(kind)
    x, grad = (scale * drawn(3, 7, 24)).requires_grad_(), drawn(3, 7, 24, name="grad")
    expected = module(x)
    slope = torch.autograd.grad(expected, x, grad)[0]
    freeze(module)
    assert isinstance(module[0], FrozenNorm)
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(module(x), x, grad)[0], slope, rtol=1e-4, atol=1e-5 / scale)


def test_the_gradient_of_a_norm_is_that_of_differences():
    module = norm_of()
    freeze(module)
    x = drawn(2, 24).double().requires_grad_()
    norm = FrozenNorm(nn.Parameter(module[0].weight.double(), requires_grad=False), 1e-5)
    # The norm computes in float32: differences of that size.
    assert torch.autograd.gradcheck(norm, (x,), eps=1e-2, atol=2e-3, rtol=1e-2)


def test_a_norm_in_bfloat16_is_as_near_to_float64_as_that_of_transformers():
    module, x = norm_of(dtype=torch.bfloat16), drawn(64, 24).bfloat16()
    exact = x.double() * (x.double().square().mean(-1, keepdim=True) + 1e-5).rsqrt() * module[0].weight.double()
    theirs = (module(x).double() - exact).abs().max()
    freeze(module)
    assert isinstance(module[0], FrozenNorm) and module(x).dtype == torch.bfloat16
    assert (module(x).double() - exact).abs().max() <= theirs


def test_a_norm_that_computes_something_else_stays():
    module = norm_of(GemmaRMSNorm)
    freeze(module)
    assert type(module[0]) is GemmaRMSNorm


def test_a_norm_whose_eps_cannot_be_told_stays():
    module = norm_of()
    module[0].other = 0.5
    freeze(module)
    assert type(module[0]) is LlamaRMSNorm


def test_linear_layers_keep_their_parameters_and_names():
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4, bias=False)).requires_grad_(False)
    before = {name: id(parameter) for name, parameter in module.named_parameters()}
    x = drawn(5, 4)
    expected = module(x)
    freeze(module)
    assert {name: id(parameter) for name, parameter in module.named_parameters()} == before
    assert all(type(layer) is FrozenLinear for layer in module)
    torch.testing.assert_close(module(x), expected)


def test_a_layer_by_descent_from_linear_stays():
    class Router(nn.Linear):
        def forward(self, x):
            return super().forward(x).softmax(-1)

    module = nn.Sequential(Router(4, 3)).requires_grad_(False)
    freeze(module)
    assert type(module[0]) is Router


def test_tied_weights_stay_tied():
    module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)).requires_grad_(False)
    module[1].weight = module[0].weight
    freeze(module)
    assert type(module[1]) is FrozenLinear and module[1].weight is module[0].weight


def test_a_model_with_adapters_has_frozen_layers_and_a_head_whose_loss_is_taken_in_pieces():
    model = tiny("llama")
    kinds = {type(layer) for layer in model.module.modules()}
    assert {FrozenLinear, FrozenNorm} <= kinds and not {nn.Linear, LlamaRMSNorm} & kinds
    assert model.head is model.module.get_output_embeddings()


# ------------------------------------------------------------------------------------------------------ short attention


@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_short_attention_and_its_gradients_are_those_of_torch(length):
    parts = [drawn(2, 3, length, 8, name=name).double().requires_grad_() for name in "qkv"]
    grad = drawn(2, 3, length, 8, name="grad").double()
    expected = nn.functional.scaled_dot_product_attention(*parts, is_causal=True, scale=0.3)
    found = _Short.apply(*parts, 0.3)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, parts, grad), torch.autograd.grad(expected, parts, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_short_attention_in_bfloat16_is_within_twice_the_rounding_of_torch():
    """The fused kernel keeps scores in float32 until they are weights; here they are rounded in between."""
    parts = [drawn(2, 3, 40, 16, name=name).bfloat16().requires_grad_() for name in "qkv"]
    grad = drawn(2, 3, 40, 16, name="grad")

    def results(function, parts, grad):
        out = function(*parts)
        return [out, *torch.autograd.grad(out, parts, grad)]

    def fused(*parts):
        return nn.functional.scaled_dot_product_attention(*parts, is_causal=True, scale=0.25)

    exact = results(fused, [part.detach().double().requires_grad_() for part in parts], grad.double())
    theirs = results(fused, parts, grad.bfloat16())
    ours = results(lambda *parts: _Short.apply(*parts, 0.25), parts, grad.bfloat16())
    for right, their, our in zip(exact, theirs, ours, strict=True):
        assert (our.double() - right).norm() <= 2 * (their.double() - right).norm()
