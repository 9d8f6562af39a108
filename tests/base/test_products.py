"""Products by the fast kernel of a processor are the products, to float32; which kernel it is follows from the make."""

import subprocess
import sys

import pytest
import torch

from fedloom.base import products, rng
from fedloom.base.products import frozen_linear, is_fast, linear

SHAPES = [((3, 5), 7), ((2, 3, 5), 7), ((300, 64), 128), ((5, 200, 64), 96), ((1, 1, 1500, 33), 65)]


@pytest.fixture(params=["fast", "plain"])
def kernel(request, monkeypatch):
    """Either kernel, whatever this machine would take, for products of every size."""
    monkeypatch.setattr(products, "is_fast", lambda: request.param == "fast")
    monkeypatch.setattr(products, "_LEAST", 0)


def drawn(shape, width, bias=True):
    draws = rng.generator("products", *shape, width)
    x = torch.randn(shape, generator=draws)
    return x, torch.randn(width, shape[-1], generator=draws), torch.randn(width, generator=draws) if bias else None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "width"), SHAPES)
def test_a_product_is_that_of_float64(kernel, shape, width, bias):
    x, weight, b = drawn(shape, width, bias)
    right = x.double() @ weight.double().T + (b.double() if bias else 0)
    torch.testing.assert_close(linear(x, weight, b).double(), right, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("shape", "width"), SHAPES)
def test_the_gradient_is_that_of_autograd(kernel, shape, width):
    x, weight, b = drawn(shape, width)
    grad = torch.randn(*shape[:-1], width, generator=rng.generator("grad"))
    expected = torch.autograd.grad(torch.nn.functional.linear(x.requires_grad_(), weight, b), x, grad)[0]
    found = torch.autograd.grad(frozen_linear(x, weight, b), x, grad)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("layout", ["transposed", "sliced", "expanded"])
def test_any_layout_in_memory_is_multiplied(kernel, layout):
    x, weight, _ = drawn((40, 60), 30)
    x = {"transposed": x.T.contiguous().T, "sliced": torch.cat([x, x], 1)[:, :60], "expanded": x[:1].expand(40, 60)}[
        layout
    ]
    torch.testing.assert_close(linear(x, weight), x.clone() @ weight.T, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(linear(x, weight.T.contiguous().T), x.clone() @ weight.T, rtol=1e-5, atol=1e-4)


def test_what_a_product_gives_may_be_changed_in_place(kernel):
    """A low-rank layer adds to it, which autograd allows of no view made inside a function."""
    x, weight, _ = drawn((2, 30, 20), 10)
    out = frozen_linear(x.requires_grad_(), weight)
    out.mul_(2).sum().backward()
    torch.testing.assert_close(x.grad, 2 * weight.sum(0).expand_as(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_left_to_torch(kernel, dtype):
    x, weight, b = (part.to(dtype) for part in drawn((30, 20), 10))
    assert torch.equal(linear(x, weight, b), torch.nn.functional.linear(x, weight, b))


def test_an_infinite_number_stays_one(kernel):
    x, weight, _ = drawn((30, 20), 10)
    x[3, 4] = float("inf")
    assert not torch.isfinite(linear(x, weight)[3]).any()


@pytest.mark.slow
def test_every_process_of_a_machine_takes_the_same_kernel():
    code = "from fedloom.base.products import is_fast; print(is_fast())"
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert said == {f"{is_fast()}\n"}


def test_on_the_maker_of_mkl_and_on_other_machines_torch_is_asked(monkeypatch):
    for name, told in (("_is_intel", True), ("_is_exact", False)):
        with monkeypatch.context() as patch:
            patch.setattr(products, "_is_intel", lambda: False)
            patch.setattr(products, "_is_exact", lambda: True)
            patch.setattr(products, name, lambda told=told: told)
            assert not is_fast.__wrapped__()
    monkeypatch.setattr(products.platform, "machine", lambda: "aarch64")
    assert not is_fast.__wrapped__()


def test_a_kernel_that_rounds_to_bfloat16_is_not_taken(monkeypatch):
    monkeypatch.setattr(products, "_onednn", lambda x, w, b: (x.bfloat16() @ w.bfloat16().T).float())
    assert not products._is_exact()
