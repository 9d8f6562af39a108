"""Aggregation of low-rank factors against dense matrices: what each way promises, for equal and for mixed ranks."""

import numpy as np
import pytest
import torch

from fedloom.base import rng
from fedloom.base.errors import ConfigError, DataError, ModelError
from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Aggregator, Frame
from fedloom.federated.aggregators import _factors

O, D = 9, 6  # noqa: E741 - output and input width, as in the package
WEIGHTS = [1.0, 2.0, 5.0]
LAYERS = ("q", "v")


def make(name, **settings):
    return lookup(Aggregator, name)(**settings)


def frame_of(rank, *, dtype=torch.float64, slots=("delta",), output=O, width=D):
    """A frame of two layers and a tensor that is no factor, with a random anchor."""
    shapes = {
        f"{layer}.lora_{end}": shape for layer in LAYERS for end, shape in (("A", (rank, width)), ("B", (output, rank)))
    }
    shapes["norm.weight"] = (4,)
    layout = Layout(tuple((slot, name, shape) for slot in slots for name, shape in shapes.items()))
    anchor_P = torch.randn(layout.size // len(slots), generator=rng.generator("anchor", rank), dtype=torch.float64)
    return Frame(layout, anchor_P.to(dtype))


def rows_of(frame, *, count=3, same=(), ranks=None):
    """Random rows; clients hold the same factors of the kinds in `same`, and no more than their rank where given."""
    size = frame.layout.size
    rows_NP = torch.randn(count, size, generator=rng.generator("rows", size, count), dtype=torch.float64)
    rows_NP = rows_NP.to(frame.anchor_P.dtype)
    delta, anchor = frame.layout.slots(rows_NP)["delta"], params(frame, torch.zeros(size, dtype=rows_NP.dtype))
    for name, change in delta.items():
        if name[-1] in same:
            change[:] = change[0].clone()
        for k, own in enumerate(ranks or []):
            if name.endswith("lora_A"):
                change[k, own:] = -anchor[name][own:]
            elif name.endswith("lora_B"):
                change[k, :, own:] = -anchor[name][:, own:]
    return rows_NP


def params(frame, row_P):
    """The parameters after the change in a row, by name."""
    delta = frame.layout.slots(row_P)["delta"]
    layout = Layout(tuple(("", name, tuple(value.shape)) for name, value in delta.items()))
    anchor = layout.tree(frame.anchor_P)
    return {name: anchor[name] + value for name, value in delta.items()}


def products(frame, row_P):
    """B A of each layer after the change in a row, as NumPy matrices in float64."""
    tree = {name: value.double().numpy() for name, value in params(frame, row_P).items()}
    return {layer: tree[f"{layer}.lora_B"] @ tree[f"{layer}.lora_A"] for layer in LAYERS}


def mean_products(frame, rows_NP, weights):
    share = np.array(weights) / sum(weights)
    each = [products(frame, row_P) for row_P in rows_NP]
    return {layer: sum(s * one[layer] for s, one in zip(share, each, strict=True)) for layer in LAYERS}


def best(matrix, rank):
    """The best approximation of a rank, from a dense SVD."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


def aggregated(name, frame, rows_NP, weights=WEIGHTS, **settings):
    """The result of an accumulator, and what it measured."""
    total = make(name, **settings).accumulator(frame)
    for row_P, weight in zip(rows_NP, weights, strict=True):
        total.add(row_P, weight)
    done = total.result()
    return done.row_P, done.measures


def shares(weights=WEIGHTS):
    weight_N = torch.tensor(weights, dtype=torch.float64)
    return weight_N / weight_N.sum()


def assert_products(found, expected, *, rtol):
    for layer in LAYERS:
        assert np.linalg.norm(found[layer] - expected[layer]) <= rtol * np.linalg.norm(expected[layer])


# ---------------------------------------------------------------------------------------------------------- lora_svd


@pytest.mark.parametrize("rank", [1, 2, 4, 8])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_svd_gives_the_best_product_of_its_rank(rank, count, dtype, rtol):
    frame, weights = frame_of(rank, dtype=dtype), list(range(1, count + 1))
    rows_NP = rows_of(frame, count=count)
    row_P, _ = aggregated("lora_svd", frame, rows_NP, weights)
    expected = {layer: best(mean, rank) for layer, mean in mean_products(frame, rows_NP, weights).items()}
    assert_products(products(frame, row_P), expected, rtol=rtol)


def test_svd_keeps_the_mean_product_where_the_rank_suffices():
    frame = frame_of(D)
    rows_NP = rows_of(frame)
    row_P, _ = aggregated("lora_svd", frame, rows_NP)
    assert_products(products(frame, row_P), mean_products(frame, rows_NP, WEIGHTS), rtol=1e-12)


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_first_rows_of_the_svd_are_the_best_of_a_smaller_rank(kept):
    frame = frame_of(4)
    rows_NP = rows_of(frame)
    tree = params(frame, aggregated("lora_svd", frame, rows_NP)[0])
    found = {layer: (tree[f"{layer}.lora_B"][:, :kept] @ tree[f"{layer}.lora_A"][:kept]).numpy() for layer in LAYERS}
    expected = {layer: best(mean, kept) for layer, mean in mean_products(frame, rows_NP, WEIGHTS).items()}
    assert_products(found, expected, rtol=1e-12)


def test_columns_of_b_fall_in_length_along_the_rank_axis():
    frame = frame_of(4)
    lengths_R = params(frame, aggregated("lora_svd", frame, rows_of(frame))[0])["q.lora_B"].norm(dim=0)
    assert torch.equal(lengths_R, lengths_R.sort(descending=True).values)


def test_rows_of_a_are_orthonormal():
    frame = frame_of(4)
    a_RD = params(frame, aggregated("lora_svd", frame, rows_of(frame))[0])["q.lora_A"]
    torch.testing.assert_close(a_RD @ a_RD.T, torch.eye(4, dtype=torch.float64))


def test_largest_number_of_each_row_of_a_is_positive():
    frame = frame_of(4)
    a_RD = params(frame, aggregated("lora_svd", frame, rows_of(frame))[0])["v.lora_A"]
    assert bool((a_RD.amax(1) >= -a_RD.amin(1)).all())


def test_direction_without_product_keeps_a_row_of_a_that_can_be_learnt_from():
    frame = frame_of(4)
    rows_NP = rows_of(frame, count=2, ranks=[1, 1])
    lengths_R = params(frame, aggregated("lora_svd", frame, rows_NP, [1.0, 1.0])[0])["q.lora_A"].norm(dim=1)
    torch.testing.assert_close(lengths_R, torch.ones(4, dtype=torch.float64))


def test_rank_beyond_the_width_of_a_layer_is_filled_up_with_zeros():
    frame = frame_of(8)
    tree = params(frame, aggregated("lora_svd", frame, rows_of(frame))[0])
    rest = torch.cat([tree["q.lora_A"][D:].flatten(), tree["q.lora_B"][:, D:].flatten()])
    torch.testing.assert_close(rest, torch.zeros_like(rest))


def test_tensors_that_are_no_factors_are_averaged():
    frame = frame_of(2)
    rows_NP = rows_of(frame)
    found = frame.layout.slots(aggregated("lora_svd", frame, rows_NP)[0])["delta"]["norm.weight"]
    expected = shares() @ frame.layout.slots(rows_NP)["delta"]["norm.weight"]
    torch.testing.assert_close(found, expected)


def test_other_slots_are_averaged_with_their_factors():
    frame = frame_of(2, slots=("delta", "control"))
    rows_NP = rows_of(frame)
    found = frame.layout.slots(aggregated("lora_svd", frame, rows_NP)[0])["control"]
    expected = {
        name: torch.einsum("n,n...->...", shares(), value)
        for name, value in frame.layout.slots(rows_NP)["control"].items()
    }
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["lora_svd", "lora_stack"])
def test_rows_without_changes_of_parameters_are_averaged(name):
    frame = Frame(Layout((("control", "q.lora_A", (2, D)),)), torch.zeros(0))
    rows_NP = torch.randn(3, 2 * D, generator=rng.generator("control"), dtype=torch.float64)
    torch.testing.assert_close(aggregated(name, frame, rows_NP)[0], shares() @ rows_NP)


def test_discarded_share_is_that_of_the_dense_matrices():
    frame = frame_of(2)
    rows_NP = rows_of(frame)
    means = mean_products(frame, rows_NP, WEIGHTS).values()
    expected = np.linalg.norm([mean - best(mean, 2) for mean in means]) / np.linalg.norm(list(means))
    assert aggregated("lora_svd", frame, rows_NP)[1]["discarded"] == pytest.approx(expected, rel=1e-12)


def test_nothing_is_discarded_of_one_client():
    frame = frame_of(2)
    assert aggregated("lora_svd", frame, rows_of(frame, count=1), [3.0])[1]["discarded"] < 1e-12


def test_measured_gap_is_that_of_the_function():
    frame = frame_of(2)
    rows_NP = rows_of(frame)
    measured = aggregated("lora_svd", frame, rows_NP)[1]["gap"]
    assert measured == pytest.approx(_factors.gap(rows_NP, shares(), frame), rel=1e-12)


def test_svd_never_makes_the_dense_product():
    """Dense, the one product would take 80 GB."""
    wide = 100_000
    layout = Layout((("delta", "x.lora_A", (2, wide)), ("delta", "x.lora_B", (wide, 2))))
    rows_NP = torch.randn(2, layout.size, generator=rng.generator("wide"))
    frame = Frame(layout, torch.zeros(layout.size))
    row_P, _ = aggregated("lora_svd", frame, rows_NP, [1.0, 1.0])
    a_2D, b_2D = layout.slots(row_P)["delta"]["x.lora_A"], layout.slots(row_P)["delta"]["x.lora_B"]
    assert a_2D.norm() > 0 and b_2D[:, 0].norm() >= b_2D[:, 1].norm() > 0


@pytest.mark.parametrize("name", ["lora_svd", "lora_stack"])
def test_rows_in_a_file_give_the_same_row(name):
    frame = frame_of(D)
    rows_NP = rows_of(frame)
    in_file, in_memory = (aggregated(name, frame, rows_NP, limit_bytes=limit)[0] for limit in (1, 1 << 20))
    assert torch.equal(in_file, in_memory)


# ------------------------------------------------------------------------------------------------- stacking (FLoRA)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_stacked_factors_have_the_mean_product_exactly(count):
    frame, weights = frame_of(3), list(range(1, count + 1))
    rows_NP = rows_of(frame, count=count)
    found = {layer: (left @ right).numpy() for layer, left, right in _factors.stacked(rows_NP, shares(weights), frame)}
    assert_products(found, mean_products(frame, rows_NP, weights), rtol=1e-14)


def test_stacked_factors_have_the_sum_of_the_ranks():
    frame = frame_of(3)
    shapes = {
        (tuple(left.shape), tuple(right.shape)) for _, left, right in _factors.stacked(rows_of(frame), shares(), frame)
    }
    assert shapes == {((O, 9), (9, D))}


def test_stacking_is_lossless_where_the_ranks_of_clients_add_up_to_the_adapters():
    frame = frame_of(4)
    rows_NP = rows_of(frame, ranks=[1, 2, 1])
    row_P, _ = aggregated("lora_stack", frame, rows_NP)
    assert_products(products(frame, row_P), mean_products(frame, rows_NP, WEIGHTS), rtol=1e-12)


@pytest.mark.parametrize("same", ["A", "B"])
def test_stacking_is_lossless_where_one_factor_is_common(same):
    frame = frame_of(2)
    rows_NP = rows_of(frame, same=same)
    row_P, _ = aggregated("lora_stack", frame, rows_NP)
    assert_products(products(frame, row_P), mean_products(frame, rows_NP, WEIGHTS), rtol=1e-12)


def test_stacking_in_float32_does_not_take_rounding_for_rank():
    frame = frame_of(4, dtype=torch.float32)
    rows_NP = rows_of(frame, ranks=[1, 2, 1])
    row_P, _ = aggregated("lora_stack", frame, rows_NP)
    assert_products(products(frame, row_P), mean_products(frame, rows_NP, WEIGHTS), rtol=1e-6)


def test_stack_that_does_not_fit_is_refused_with_the_rank_it_needs():
    frame = frame_of(2)
    text = (
        r"^aggregator: the mean product of 3 clients in 'q' has rank 6, the adapter has rank 2: raise model\.lora_rank "
        r"to 6, give the clients ranks that add up to 2, or accept the loss with aggregator\.name = 'lora_svd'\.$"
    )
    with pytest.raises(ModelError, match=text):
        aggregated("lora_stack", frame, rows_of(frame))


def test_refused_rank_is_the_numerical_one():
    frame = frame_of(2)
    with pytest.raises(ModelError, match="'q' has rank 3, the adapter has rank 2"):
        aggregated("lora_stack", frame, rows_of(frame, ranks=[1, 1, 1]))


def test_tolerance_accepts_a_small_loss():
    frame = frame_of(1)
    rows_NP = rows_of(frame, count=2)
    rows_NP[1] = rows_NP[0] + 1e-3 * rows_NP[1]
    row_P, _ = aggregated("lora_stack", frame, rows_NP, [1.0, 1.0], tolerance=1e-2)
    assert_products(products(frame, row_P), mean_products(frame, rows_NP, [1.0, 1.0]), rtol=1e-2)


# --------------------------------------------------------------------------------- frozen A (FFA-LoRA), mixed ranks


def test_plain_mean_is_exact_where_a_is_frozen():
    """FFA-LoRA, Sun et al., 2024, https://arxiv.org/abs/2403.12313: only B is trained and sent."""
    draws = rng.generator("frozen")
    a_RD, b_NOR = torch.randn(2, D, generator=draws).double(), torch.randn(3, O, 2, generator=draws).double()
    layout = Layout((("delta", "q.lora_B", (O, 2)),))
    row_P, _ = aggregated("mean", Frame(layout, torch.zeros(O * 2)), b_NOR.flatten(1))
    torch.testing.assert_close(row_P.view(O, 2) @ a_RD, torch.einsum("n,nor,rd->od", shares(), b_NOR, a_RD))


def test_plain_mean_is_not_exact_where_both_factors_are_trained():
    frame = frame_of(2)
    rows_NP = rows_of(frame)
    found, expected = products(frame, aggregated("mean", frame, rows_NP)[0]), mean_products(frame, rows_NP, WEIGHTS)
    assert np.linalg.norm(found["q"] - expected["q"]) > 0.1 * np.linalg.norm(expected["q"])


def test_plain_mean_of_mixed_ranks_is_the_mean_of_the_zero_padded_factors():
    """HetLoRA's zero padding, Cho et al., 2024, https://arxiv.org/abs/2401.06432: who lacks a direction counts as 0."""
    frame, ranks = frame_of(4), [1, 2, 4]
    rows_NP = rows_of(frame, ranks=ranks)
    found_RD = params(frame, aggregated("mean", frame, rows_NP)[0])["q.lora_A"]
    held = [params(frame, row_P)["q.lora_A"][:own] for row_P, own in zip(rows_NP, ranks, strict=True)]
    expected = [
        sum(w / sum(WEIGHTS) * a[r] for w, a in zip(WEIGHTS, held, strict=True) if r < len(a)).tolist()
        for r in range(4)
    ]
    torch.testing.assert_close(found_RD, torch.tensor(expected, dtype=torch.float64))


def test_svd_of_mixed_ranks_is_that_of_the_unpadded_products():
    frame, ranks = frame_of(4), [1, 2, 4]
    rows_NP = rows_of(frame, ranks=ranks)
    expected = {layer: np.zeros((O, D)) for layer in LAYERS}
    for row_P, own, weight in zip(rows_NP, ranks, WEIGHTS, strict=True):
        tree = params(frame, row_P)
        for layer in LAYERS:
            b_Or, a_rD = tree[f"{layer}.lora_B"][:, :own].numpy(), tree[f"{layer}.lora_A"][:own].numpy()
            expected[layer] += weight / sum(WEIGHTS) * b_Or @ a_rD
    expected = {layer: best(mean, 4) for layer, mean in expected.items()}
    assert_products(products(frame, aggregated("lora_svd", frame, rows_NP)[0]), expected, rtol=1e-12)


def test_rows_in_the_scale_of_the_layer_average_what_clients_of_other_scales_compute():
    """A client computes alpha / r B A, the layer alpha / R B A: its B is sent times R / r."""
    frame, ranks, alpha = frame_of(4), [1, 2, 1], 8.0
    rows_NP = rows_of(frame, ranks=ranks)
    own = [[alpha / r * m for m in products(frame, row).values()] for row, r in zip(rows_NP, ranks, strict=True)]
    expected = sum(w / sum(WEIGHTS) * np.array(m) for w, m in zip(WEIGHTS, own, strict=True))
    sent_NP = rows_NP.clone()
    for name, value in frame.layout.slots(sent_NP)["delta"].items():
        if name.endswith("lora_B"):
            start = params(frame, torch.zeros_like(sent_NP[0]))[name]
            for k, r in enumerate(ranks):
                value[k] = (start + value[k]) * 4 / r - start
    found = products(frame, aggregated("lora_stack", frame, sent_NP)[0])
    np.testing.assert_allclose(alpha / 4 * np.array(list(found.values())), expected, atol=1e-11)


# ----------------------------------------------------------------------------------------------------------- the gap


def dense_gap(frame, rows_NP, weights):
    """Mean of products minus product of means, written out layer by layer in whole matrices."""
    means = mean_products(frame, rows_NP, weights)
    product_of_means = products(frame, torch.einsum("n,np->p", shares(weights), rows_NP.double()))
    gaps = [product_of_means[layer] - means[layer] for layer in LAYERS]
    return np.linalg.norm(gaps) / np.linalg.norm(list(means.values()))


@pytest.mark.parametrize("rank", [1, 2, 8])
@pytest.mark.parametrize("count", [1, 3, 6])
def test_gap_is_that_of_the_dense_matrices(rank, count):
    frame, weights = frame_of(rank), list(range(1, count + 1))
    rows_NP = rows_of(frame, count=count)
    found = _factors.gap(rows_NP, shares(weights), frame)
    assert found == pytest.approx(dense_gap(frame, rows_NP, weights), rel=1e-10, abs=1e-13)


def test_gap_of_unlike_adapters_is_large():
    frame = frame_of(2)
    assert _factors.gap(rows_of(frame), shares(), frame) > 0.1


@pytest.mark.parametrize("same", ["A", "B"])
def test_gap_with_one_factor_in_common_is_zero(same):
    frame = frame_of(2)
    assert _factors.gap(rows_of(frame, same=same), shares(), frame) < 1e-14


def test_gap_where_nothing_was_learnt_is_zero():
    frame = frame_of(2)
    frame = Frame(frame.layout, torch.zeros_like(frame.anchor_P))
    rows_NP = rows_of(frame)
    for name, value in frame.layout.slots(rows_NP)["delta"].items():
        value.mul_(not name.endswith("lora_B"))
    assert _factors.gap(rows_NP, shares(), frame) == 0


def test_gap_of_two_opposite_adapters_by_hand():
    """B A = 1 for both, and both means are 0: all that was learnt is lost."""
    frame = Frame(Layout((("delta", "x.lora_A", (1, 1)), ("delta", "x.lora_B", (1, 1)))), torch.zeros(2))
    rows_NP = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert _factors.gap(rows_NP, torch.tensor([0.5, 0.5]), frame) == pytest.approx(1, abs=1e-12)


def test_gap_refuses_weights_that_do_not_sum_to_one():
    frame = frame_of(2)
    with pytest.raises(DataError, match="weights sum to 2"):
        _factors.gap(rows_of(frame), 2 * shares(), frame)


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["lora_svd", "lora_stack"])
@pytest.mark.parametrize(("present", "absent", "shape"), [("A", "B", (2, D)), ("B", "A", (O, 2))])
def test_factor_without_its_partner_is_refused_before_any_row(name, present, absent, shape):
    layout = Layout((("delta", f"q.lora_{present}", shape),))
    text = rf"the rows hold 'q\.lora_{present}' without 'q\.lora_{absent}', .* use aggregator\.name = 'mean'"
    with pytest.raises(ConfigError, match=text):
        make(name).accumulator(Frame(layout, torch.zeros(layout.size)))


@pytest.mark.parametrize("name", ["lora_svd", "lora_stack"])
def test_rows_without_factors_are_refused_before_any_row(name):
    layout = Layout((("delta", "q.weight", (O, D)),))
    with pytest.raises(
        ConfigError, match=r"none of 1 trained tensors ends in '\.lora_A' or '\.lora_B': use aggregator"
    ):
        make(name).accumulator(Frame(layout, torch.zeros(layout.size)))


@pytest.mark.parametrize("name", ["lora_svd", "lora_stack"])
def test_rows_without_factors_are_refused_as_a_matrix(name):
    layout = Layout((("delta", "q.weight", (O, D)),))
    with pytest.raises(ConfigError, match="none of 1 trained tensors"):
        make(name)(torch.ones(1, O * D), torch.ones(1), Frame(layout, torch.zeros(layout.size)))


def test_tolerance_beyond_a_hundredth_is_refused():
    with pytest.raises(ConfigError, match=r"tolerance: found 0\.1, allowed is a number >= 0 and <= 0\.01"):
        make("lora_stack", tolerance=0.1)
