"""Trees, rows, layouts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.base import rng, tree
from fedloom.base.errors import ModelError
from fedloom.base.tree import Layout
from support.trees import unstack

SHAPES = st.dictionaries(
    st.text("abc.", min_size=1, max_size=4), st.lists(st.integers(0, 3), max_size=3).map(tuple), min_size=1, max_size=4
)
quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def of_shapes(shapes, *seed, dtype=torch.float32):
    draws = rng.generator("tree", *seed)
    return {name: torch.randn(shape, generator=draws, dtype=dtype) for name, shape in shapes.items()}


def small(*seed):
    return of_shapes({"a": (2, 3), "b": (4,), "c": ()}, *seed)


def equal(one, other):
    return tree.digest(one) == tree.digest(other)


def test_add_with_a_factor():
    assert tree.add({"a": torch.tensor([1.0])}, {"a": torch.tensor([2.0])}, -0.5)["a"].item() == 0.0


def test_sub_is_the_inverse_of_add():
    one = {"a": torch.tensor([1.0, -2.0])}
    assert equal(tree.sub(tree.add(one, one), one), one)


def test_scale():
    assert tree.scale({"a": torch.tensor([1.0, -2.0])}, 3.0)["a"].tolist() == [3.0, -6.0]


def test_zeros_like_keeps_names_shapes_and_dtypes():
    zeros = tree.zeros_like(of_shapes({"a": (2, 3)}, dtype=torch.float64))
    assert equal(zeros, {"a": torch.zeros(2, 3, dtype=torch.float64)})


@pytest.mark.parametrize("function", [tree.add, tree.sub])
def test_arithmetic_changes_none_of_its_inputs(function):
    one, other = small(1), small(2)
    before = tree.digest(one), tree.digest(other)
    function(one, other)
    assert (tree.digest(one), tree.digest(other)) == before


def test_trees_of_other_names_are_refused():
    with pytest.raises(
        ModelError, match=r"^trees differ in 2 names, the first is 'a': both must hold the same tensors\.$"
    ):
        tree.add({"a": torch.zeros(1)}, {"b": torch.zeros(1)})


def test_trees_of_other_dtypes_are_refused():
    with pytest.raises(ModelError, match=r"^'a' is torch\.float32 in one tree and torch\.float64 in the other\.$"):
        tree.add({"a": torch.zeros(1)}, {"a": torch.zeros(1, dtype=torch.float64)})


@pytest.mark.parametrize("other", [(1,), (2,), (2, 1), (1, 3), (2, 4), (3, 3)])
def test_trees_of_other_shapes_are_refused(other):
    with pytest.raises(ModelError, match=r"^'a' has shape \(2, 3\) in one tree and \(.*\) in the other\.$"):
        tree.add({"a": torch.zeros(2, 3)}, {"a": torch.zeros(other)})


def test_stacked_trees_take_a_tree_that_all_share():
    shared, clients = small("shared"), [small(k) for k in range(3)]
    together = tree.sub(tree.stack(clients), shared)
    assert [tree.digest(one) for one in unstack(together)] == [tree.digest(tree.sub(c, shared)) for c in clients]


@quick
@given(SHAPES, st.integers(1, 4))
def test_unstack_undoes_stack(shapes, count):
    trees = [of_shapes(shapes, index) for index in range(count)]
    assert [tree.digest(one) for one in unstack(tree.stack(trees))] == [tree.digest(one) for one in trees]


@quick
@given(SHAPES)
def test_tree_to_row_and_back_is_the_same_bits(shapes):
    one = of_shapes(shapes)
    layout = Layout.of_tree(one)
    assert equal(layout.tree(layout.row({"": one})), one)


@quick
@given(SHAPES)
def test_slots_to_row_and_back_are_the_same_bits(shapes):
    slots = {"delta": of_shapes(shapes, 1), "control": of_shapes(shapes, 2)}
    layout = Layout.of(slots)
    back = layout.slots(layout.row(slots))
    assert [tree.digest(back[slot]) for slot in slots] == [tree.digest(slots[slot]) for slot in slots]


@quick
@given(SHAPES)
def test_size_of_a_layout_is_the_length_of_its_row(shapes):
    one = of_shapes(shapes)
    assert Layout.of_tree(one).size == len(tree.flatten(one))


def test_row_keeps_the_order_of_names():
    assert tree.flatten({"b": torch.tensor([1.0]), "a": torch.tensor([2.0])}).tolist() == [1.0, 2.0]


def test_row_of_one_layout_in_another_order_is_refused():
    one, other = {"a": torch.zeros(2), "b": torch.zeros(2)}, {"b": torch.zeros(2), "a": torch.zeros(2)}
    with pytest.raises(ModelError, match="a row of another layout"):
        Layout.of_tree(one).row({"": other})


def test_slots_of_another_layout_are_refused_by_name():
    with pytest.raises(ModelError, match=r"^a row of another layout: 'delta/a' \(\d,\) does not fit\.$"):
        Layout.of({"delta": {"a": torch.zeros(2)}}).row({"delta": {"a": torch.zeros(3)}})


def test_row_of_another_length_is_refused():
    with pytest.raises(ModelError, match=r"^a row has shape \(3,\), its layout needs \(2,\)\.$"):
        Layout.of_tree({"a": torch.zeros(2)}).tree(torch.zeros(3))


def test_tree_of_two_dtypes_has_no_row():
    with pytest.raises(ModelError, match=r"^a row needs one dtype, found torch\.float32, torch\.float64\.$"):
        tree.flatten({"a": torch.zeros(1), "b": torch.zeros(1, dtype=torch.float64)})


def test_slots_of_two_dtypes_have_no_row():
    slots = {"delta": {"a": torch.zeros(1)}, "control": {"a": torch.zeros(1, dtype=torch.float64)}}
    with pytest.raises(ModelError, match=r"^a row needs one dtype, found torch\.float32, torch\.float64\.$"):
        Layout.of(slots).row(slots)


def test_trees_of_a_row_are_views_of_it():
    row_P = torch.zeros(4)
    Layout.of_tree({"a": torch.zeros(2, 2)}).tree(row_P)["a"][1, 1] = 5.0
    assert row_P[3].item() == 5.0


def test_columns_are_those_of_the_named_slots():
    layout = Layout.of({"delta": {"a": torch.zeros(2)}, "control": {"a": torch.zeros(3)}})
    assert layout.columns(frozenset({"control"})).tolist() == [False, False, True, True, True]


def test_layouts_of_equal_trees_are_equal():
    assert Layout.of_tree(small(1)) == Layout.of_tree(small(2))


def test_digest_of_equal_trees_is_equal():
    assert tree.digest(small(1)) == tree.digest(small(1))


def test_digest_ignores_the_order_of_names():
    one = small(1)
    assert tree.digest(dict(reversed(one.items()))) == tree.digest(one)


CHANGED = {
    "one bit": {"a": torch.nextafter(torch.ones(2, 2), torch.tensor(2.0))},
    "sign of zero": {"a": torch.tensor([[1.0, 1.0], [1.0, -0.0]])},
    "name": {"b": torch.ones(2, 2)},
    "shape": {"a": torch.ones(4)},
    "dtype": {"a": torch.ones(2, 2, dtype=torch.float64)},
    "more": {"a": torch.ones(2, 2), "b": torch.ones(1)},
}


@pytest.mark.parametrize("change", CHANGED)
def test_digest_sees_a_change_of(change):
    plain = {"a": torch.tensor([[1.0, 1.0], [1.0, 0.0]])} if change == "sign of zero" else {"a": torch.ones(2, 2)}
    assert tree.digest(CHANGED[change]) != tree.digest(plain)


def test_digest_of_a_view_is_that_of_its_copy():
    wide = torch.arange(12.0).reshape(3, 4)
    assert tree.digest({"a": wide.T}) == tree.digest({"a": wide.T.contiguous()})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_digest_takes_any_dtype(dtype):
    assert len(tree.digest({"a": torch.ones(3).to(dtype), "b": torch.ones(()).to(dtype)})) == 64
