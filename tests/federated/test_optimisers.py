"""The client's optimisers against torch's own, and on stacked rows."""

import pytest
import torch

from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.optimisers import Moments, advance

SETTINGS = [
    LocalSettings(optimiser="adamw"),
    LocalSettings(optimiser="adamw", weight_decay=0.1, beta1=0.8, beta2=0.95, epsilon=1e-6),
    LocalSettings(optimiser="sgd"),
    LocalSettings(optimiser="sgd", momentum=0.9),
    LocalSettings(optimiser="sgd", momentum=0.5, weight_decay=0.1),
]


def torch_optimiser(row, settings, lr):
    if settings.optimiser == "sgd":
        return torch.optim.SGD([row], lr=lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW([row], lr=lr, betas=betas, eps=settings.epsilon, weight_decay=settings.weight_decay)


@pytest.mark.parametrize("settings", SETTINGS)
def test_ten_steps_equal_those_of_torch(settings):
    random = torch.Generator().manual_seed(1)
    start = torch.randn(1, 50, generator=random, dtype=torch.float64)
    ours, theirs = start.clone(), start.clone().requires_grad_()
    moments, reference = Moments.like(ours, settings), torch_optimiser(theirs, settings, 0.05)
    for _ in range(10):
        grad = torch.randn(1, 50, generator=random, dtype=torch.float64)
        advance(ours, grad.clone(), moments, settings, lr=0.05)
        theirs.grad = grad
        reference.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("settings", SETTINGS)
def test_stacked_rows_move_like_each_alone(settings):
    random = torch.Generator().manual_seed(2)
    rows, grads = torch.randn(3, 20, generator=random), torch.randn(3, 20, generator=random)
    stacked = rows.clone()
    advance(stacked, grads.clone(), Moments.like(stacked, settings), settings, lr=0.1)
    for row, grad, moved in zip(rows.split(1), grads.split(1), stacked.split(1), strict=True):
        alone = row.clone()
        advance(alone, grad.clone(), Moments.like(alone, settings), settings, lr=0.1)
        assert torch.equal(alone, moved)


@pytest.mark.parametrize("settings", SETTINGS)
def test_saved_moments_go_on_where_they_were(settings):
    random = torch.Generator().manual_seed(3)
    grads = torch.randn(6, 1, 20, generator=random)
    unbroken, broken = torch.ones(1, 20), torch.ones(1, 20)
    moments, first, second = (Moments.like(unbroken, settings) for _ in range(3))
    for index, grad in enumerate(grads):
        advance(unbroken, grad.clone(), moments, settings, lr=0.1)
        if index == 3:
            second.load(0, first.saved(0))
        advance(broken, grad.clone(), first if index < 3 else second, settings, lr=0.1)
    assert torch.equal(unbroken, broken)


def test_loading_nothing_starts_anew():
    settings = LocalSettings()
    row, moments = torch.ones(1, 4), Moments.like(torch.ones(1, 4), settings)
    advance(row, torch.ones(1, 4), moments, settings, lr=0.1)
    moments.load(0, None)
    again = torch.ones(1, 4)
    advance(again, torch.ones(1, 4), moments, settings, lr=0.1)
    assert torch.equal(row, again)


@pytest.mark.parametrize("settings", SETTINGS)
def test_clients_that_took_different_numbers_of_steps_move_like_each_alone(settings):
    random = torch.Generator().manual_seed(4)
    starts, grads = torch.randn(2, 20, generator=random), torch.randn(5, 2, 20, generator=random)
    together, moments = starts.clone(), Moments.like(starts, settings)
    for index, grad in enumerate(grads):  # the second client takes the first three steps only
        going = 2 if index < 3 else 1
        advance(together[:going], grad[:going].clone(), moments, settings, lr=0.1)
    for client, n_steps in enumerate((5, 3)):
        alone = starts[client : client + 1].clone()
        own = Moments.like(alone, settings)
        for grad in grads[:n_steps]:
            advance(alone, grad[client : client + 1].clone(), own, settings, lr=0.1)
        assert torch.equal(alone[0], together[client])


@pytest.mark.parametrize("settings", SETTINGS)
def test_moments_of_a_client_that_has_finished_do_not_move(settings):
    rows = torch.ones(2, 20)
    moments = Moments.like(rows, settings)
    advance(rows, torch.ones(2, 20), moments, settings, lr=0.1)
    before = moments.saved(1)
    advance(rows[:1], torch.ones(1, 20), moments, settings, lr=0.1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in moments.saved(1).items())


def test_counted_steps_are_those_of_each_client():
    rows, settings = torch.ones(2, 20), LocalSettings()
    moments = Moments.like(rows, settings)
    for going in (2, 2, 1):
        advance(rows[:going], torch.ones(going, 20), moments, settings, lr=0.1)
    assert moments.steps_K1.flatten().tolist() == [3, 2]
