"""The gap between the product of mean factors and the mean of products, against dense matrices."""

import numpy as np
import pytest
import torch

from fedloom import rng
from fedloom.aggregators._factor_gap import factor_gap
from fedloom.errors import DataError, ModelError

WEIGHTS = [1.0, 2.0, 5.0]


def adapters(*, count=3, rank=2, layers=("q", "v"), same=(), dtype=torch.float64):
    """Random adapters of two layers; factors named in `same` are those of the first client."""
    draws, made = rng.generator("gap", count, rank), []
    for k in range(count):
        tree = {}
        for layer in layers:
            tree[f"{layer}.lora_A"] = torch.randn(rank, 6, generator=draws, dtype=torch.float64).to(dtype)
            tree[f"{layer}.lora_B"] = torch.randn(9, rank, generator=draws, dtype=torch.float64).to(dtype)
        made.append({name: made[0][name] if k and name[-1] in same else tensor for name, tensor in tree.items()})
    return made


def dense_gap(trees, weights):
    """Mean of products minus product of means, written out layer by layer in whole matrices."""
    share, gaps, sizes = np.array(weights) / sum(weights), [], []
    for layer in sorted({name.rpartition(".")[0] for name in trees[0]}):
        A = [tree[f"{layer}.lora_A"].double().numpy() for tree in trees]
        B = [tree[f"{layer}.lora_B"].double().numpy() for tree in trees]
        mean_of_products = sum(p * (b @ a) for p, b, a in zip(share, B, A, strict=True))
        product_of_means = sum(p * b for p, b in zip(share, B, strict=True)) @ sum(
            p * a for p, a in zip(share, A, strict=True)
        )
        gaps.append(mean_of_products - product_of_means)
        sizes.append(mean_of_products)
    return np.linalg.norm(gaps) / np.linalg.norm(sizes)


@pytest.mark.parametrize("rank", [1, 2, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gap_is_that_of_the_dense_matrices(rank, dtype):
    trees = adapters(rank=rank, dtype=dtype)
    assert factor_gap(trees, WEIGHTS) == pytest.approx(dense_gap(trees, WEIGHTS), rel=1e-10)


def test_gap_of_unlike_adapters_is_large():
    assert factor_gap(adapters(), WEIGHTS) > 0.3


@pytest.mark.parametrize("same", ["A", "B"])
def test_gap_with_one_factor_in_common_is_zero(same):
    assert factor_gap(adapters(same=same), WEIGHTS) == 0


def test_gap_of_one_adapter_is_zero():
    assert factor_gap(adapters(count=1), [3.0]) == 0


def test_gap_of_adapters_that_add_nothing_is_zero():
    trees = [{name: tensor * (name[-1] == "A") for name, tensor in tree.items()} for tree in adapters()]
    assert factor_gap(trees, WEIGHTS) == 0


def test_gap_does_not_depend_on_the_scale_of_the_weights():
    assert factor_gap(adapters(), [10 * w for w in WEIGHTS]) == pytest.approx(factor_gap(adapters(), WEIGHTS))


def test_gap_depends_on_the_shares():
    assert factor_gap(adapters(), WEIGHTS) != pytest.approx(factor_gap(adapters(), [1.0] * 3), rel=1e-3)


def test_gap_of_two_opposite_adapters_by_hand():
    """B A = 1 for both, and both means are 0: all that was learnt is lost."""
    one, other = ({"x.lora_A": torch.tensor([[s]]), "x.lora_B": torch.tensor([[s]])} for s in (1.0, -1.0))
    assert factor_gap([one, other], [1.0, 1.0]) == 1


def test_gap_changes_none_of_its_inputs():
    trees = adapters()
    kept = [{name: tensor.clone() for name, tensor in tree.items()} for tree in trees]
    factor_gap(trees, WEIGHTS)
    assert all(torch.equal(tree[name], copy[name]) for tree, copy in zip(trees, kept, strict=True) for name in tree)


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, 0.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, float("nan")]])
def test_wrong_weights_are_refused(weights):
    with pytest.raises(DataError, match=r"^3 adapters, weights \[.*\]: give each of one or more a weight > 0\.$"):
        factor_gap(adapters(), weights)


def test_no_adapters_are_refused():
    with pytest.raises(DataError, match=r"^0 adapters, weights \[\]"):
        factor_gap([], [])


@pytest.mark.parametrize("tree", [{}, {"x.lora_A": torch.ones(1, 1)}, {"x.weight": torch.ones(1, 1)}])
def test_tensors_that_are_no_pairs_of_factors_are_refused(tree):
    with pytest.raises(ModelError, match="are no pairs of lora_A and lora_B; give whole adapters"):
        factor_gap([tree], [1.0])
