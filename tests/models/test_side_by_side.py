"""Copies of a small network side by side: as each copy alone, forwards and in its gradients."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from fedloom.base.plugin import lookup, names
from fedloom.contracts.federated import ModelFamily
from fedloom.models._classifiers import Classifier
from fedloom.models.side_by_side import runs_side_by_side, side_by_side

FAMILIES = [name for name in names(ModelFamily) if issubclass(lookup(ModelFamily, name), Classifier)]
K, E = 3, 4


def copies(name):
    module = lookup(ModelFamily, name)(inputs=(3, 8, 8), classes=5).module().double()
    torch.manual_seed(0)
    params = {key: torch.randn(K, *value.shape).double() * 0.3 for key, value in module.named_parameters()}
    return module, params, torch.randn(K, E, 3, 8, 8).double()


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_are_those_of_each_copy_alone(name):
    module, params, inputs = copies(name)
    found = side_by_side(module, params, inputs)
    for at in range(K):
        own = {key: value[at] for key, value in params.items()}
        torch.testing.assert_close(found[at], functional_call(module, own, (inputs[at],)))


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_those_of_each_copy_alone(name):
    module, params, inputs = copies(name)
    label = torch.arange(E) % 5
    leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
    scores = side_by_side(module, leaves, inputs).flatten(0, 1)
    functional.cross_entropy(scores, label.repeat(K), reduction="sum").backward()
    for at in range(K):
        own = {key: value[at].clone().requires_grad_() for key, value in params.items()}
        functional.cross_entropy(functional_call(module, own, (inputs[at],)), label, reduction="sum").backward()
        for key, value in own.items():
            torch.testing.assert_close(leaves[key].grad[at], value.grad)


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_that_are_not_trained_are_shared(name):
    module, params, inputs = copies(name)
    first = next(iter(params))
    found = side_by_side(module, {first: params[first]}, inputs)
    for at in range(K):
        torch.testing.assert_close(found[at], functional_call(module, {first: params[first][at]}, (inputs[at],)))


def test_what_is_made_of_other_layers_is_not_run_side_by_side():
    assert not runs_side_by_side(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert all(runs_side_by_side(lookup(ModelFamily, name)(inputs=(1, 8, 8), classes=2).module()) for name in FAMILIES)
