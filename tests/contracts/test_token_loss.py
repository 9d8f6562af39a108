"""The cross-entropy of single tokens in pieces against the plain one: values and gradients."""

from dataclasses import replace

import pytest
import torch

from fedloom.base import tree
from fedloom.contracts import chunked_loss as module
from fedloom.contracts.chunked_loss import ChunkedLoss, token_loss
from fedloom.federated.kernels import client_gradients
from support.clients import TASK, distance, examples, random_params, tiny
from support.models import ARCHITECTURES


@pytest.fixture
def in_pieces(monkeypatch):
    """A vocabulary of 50 words counts as large, and three tokens as a piece."""
    monkeypatch.setattr(module, "_IN_CACHE", 150)


def inputs(n_tokens=8, bias=False):
    draw = torch.Generator().manual_seed(n_tokens)
    hidden_SD = torch.randn(n_tokens, 6, generator=draw, dtype=torch.float64).requires_grad_()
    head_VD = torch.randn(50, 6, generator=draw, dtype=torch.float64)
    bias_V = torch.randn(50, generator=draw, dtype=torch.float64) if bias else None
    return hidden_SD, head_VD, bias_V, torch.randint(50, (n_tokens,), generator=draw)


def plain(hidden_SD, head_VD, bias_V, targets_S):
    logits_SV = hidden_SD @ head_VD.T + (0 if bias_V is None else bias_V)
    return torch.nn.functional.cross_entropy(logits_SV, targets_S, reduction="none")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("n_tokens", [1, 3, 8, 9])
def test_losses_in_pieces_are_the_plain_ones(in_pieces, n_tokens, bias):
    given = inputs(n_tokens, bias)
    torch.testing.assert_close(ChunkedLoss.apply(*given), plain(*given))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("n_tokens", [1, 3, 8, 9])
def test_gradients_in_pieces_are_the_plain_ones(in_pieces, n_tokens, bias):
    hidden_SD, *rest = inputs(n_tokens, bias)
    ours = ChunkedLoss.apply
    weight_S = torch.arange(1.0, n_tokens + 1)
    found, expected = (
        torch.autograd.grad((weight_S * loss(hidden_SD, *rest)).sum(), hidden_SD)[0] for loss in (ours, plain)
    )
    # The softmax of a piece is float32.
    assert distance(found, expected) < 1e-6


def test_pieces_of_no_tokens_have_no_losses(in_pieces):
    hidden_SD, head_VD, _, targets_S = inputs(3)
    assert ChunkedLoss.apply(hidden_SD[:0], head_VD, None, targets_S[:0]).shape == (0,)


def test_losses_of_bfloat16_logits_are_float32():
    assert token_loss(torch.zeros(2, 5, dtype=torch.bfloat16), torch.tensor([1, 2])).dtype == torch.float32


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_with_a_large_vocabulary_has_the_gradients_of_the_whole_logits(architecture, monkeypatch):
    model = tiny(architecture)
    leaves = {n: t.requires_grad_() for n, t in tree.stack([random_params(model, k) for k in range(2)]).items()}
    parts = [examples([5, 9, 4], "large", 0), examples([7], "large", 1)]
    whole = client_gradients(replace(model, head=None), TASK, leaves, parts)
    monkeypatch.setattr(module, "_IN_CACHE", 150)
    calls, apply = [], ChunkedLoss.apply
    monkeypatch.setattr(ChunkedLoss, "apply", lambda *given: calls.append(1) or apply(*given))
    pieces = client_gradients(model, TASK, leaves, parts)
    assert calls and distance(pieces.sum_KP, whole.sum_KP) < 1e-5


def test_a_model_trained_whole_does_not_cut_its_trained_head():
    assert tiny(rank=0).head is None
