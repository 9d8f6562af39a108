"""Values that add up."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.base.mean import LossSum, Mean

MEANS = st.lists(
    st.builds(Mean, st.integers(-100, 100).map(float), st.integers(1, 50).map(float)), min_size=1, max_size=8
)
quick = settings(max_examples=50, deadline=None, derandomize=True, database=None)


def test_value_is_total_over_weight():
    assert Mean(3.0, 4.0).value == 0.75


def test_value_of_nothing_is_nan():
    assert math.isnan(Mean().value)


def test_sum_is_no_mean_of_means():
    assert (Mean(10.0, 1.0) + Mean(0.0, 9.0)).value == 1.0


def test_nothing_added_changes_nothing():
    assert Mean(3.0, 4.0) + Mean() == Mean(3.0, 4.0)


@quick
@given(MEANS, st.integers(0, 8))
def test_grouping_does_not_change_the_sum(means, cut):
    assert sum(means[:cut], Mean()) + sum(means[cut:], Mean()) == sum(means, Mean())


@quick
@given(MEANS, st.randoms(use_true_random=False))
def test_order_does_not_change_the_sum(means, random):
    assert sum(random.sample(means, len(means)), Mean()) == sum(means, Mean())


def test_mean_survives_pickling():
    assert pickle.loads(pickle.dumps(Mean(1.0, 2.0))) == Mean(1.0, 2.0)


def test_loss_sum_divides_once_over_all_examples():
    assert LossSum(torch.tensor([6.0, 2.0]), torch.tensor([1.0, 3.0])).mean == Mean(8.0, 4.0)


def test_loss_sum_of_parts_is_that_of_the_whole():
    total, weight = torch.tensor([6.0, 2.0, 5.0, 1.0]), torch.tensor([1, 3, 2, 7])
    parts = LossSum(total[:1], weight[:1]).mean + LossSum(total[1:], weight[1:]).mean
    assert parts == LossSum(total, weight).mean


def test_loss_sum_adds_in_float64():
    many = LossSum(torch.tensor([16777216.0, 1.0, 1.0]), torch.ones(3))
    assert many.mean.total == 16777218.0


def test_loss_sum_holds_no_graph():
    total = torch.tensor([1.0], requires_grad=True)
    assert LossSum(total * 2, torch.ones(1)).mean == Mean(2.0, 1.0)


@pytest.mark.parametrize("field", ["total", "weight"])
def test_mean_is_frozen(field):
    with pytest.raises(AttributeError):
        setattr(Mean(), field, 1.0)
