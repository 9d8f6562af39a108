"""Totals dealt to parts in whole numbers, against oracles that try or deal one by one."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.base.plugin import lookup, names
from fedloom.contracts.synthesis import Allocator
from fedloom.synthesis.allocation import apportioned, dealt_by_kind

calmly = settings(max_examples=100, deadline=None, derandomize=True, database=None)
totals = st.integers(0, 60)
parts = st.lists(st.integers(0, 20), min_size=1, max_size=7)


def dealt(name, total, has):
    return lookup(Allocator, name)()(total, has)


@pytest.mark.parametrize("name", names(Allocator))
@calmly
@given(total=totals, has=parts)
def test_parts_are_whole_none_is_negative_and_they_sum_to_the_total(name, total, has):
    found = dealt(name, total, has)
    assert len(found) == len(has) and sum(found) == total
    assert all(isinstance(one, int) and one >= 0 for one in found)


@pytest.mark.parametrize("name", names(Allocator))
@calmly
@given(total=totals, has=parts, data=st.data())
def test_parts_in_another_order_get_the_same_but_for_ties(name, total, has, data):
    order = data.draw(st.permutations(range(len(has))))
    plain, moved = dealt(name, total, has), dealt(name, total, [has[at] for at in order])
    assert all(abs(moved[place] - plain[at]) <= 1 for place, at in enumerate(order))


@pytest.mark.parametrize("name", names(Allocator))
@pytest.mark.parametrize(
    ("total", "has", "wanted"), [(0, [3, 1], [0, 0]), (7, [4], [7]), (0, [], []), (5, [2, 2], [3, 2])]
)
def test_nothing_one_part_no_part_and_a_tie(name, total, has, wanted):
    assert dealt(name, total, has) == wanted


@calmly
@given(total=totals, weights=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any))
def test_the_largest_remainders_get_what_is_left(total, weights):
    """The oracle: whole parts first, then one at a time to the largest rest, the earlier one of equal rests."""
    whole = sum(weights)
    found = [total * weight // whole for weight in weights]
    rests = [total * weight % whole for weight in weights]
    while sum(found) < total:
        at = max(range(len(weights)), key=lambda place: (rests[place], -place))
        found[at], rests[at] = found[at] + 1, -1
    assert apportioned(total, weights) == found


@calmly
@given(total=totals, has=parts)
def test_the_inverse_is_by_the_gap_to_the_largest(total, has):
    gaps = [max(has) - own for own in has]
    found = dealt("inverse", total, has)
    assert found == (apportioned(total, gaps) if any(gaps) else dealt("equal", total, has))
    assert not any(gaps) or all(one == 0 for one, gap in zip(found, gaps, strict=True) if gap == 0)


@calmly
@given(total=totals, has=parts)
def test_water_is_poured_one_at_a_time_on_the_lowest_part(total, has):
    level, found = list(has), [0] * len(has)
    for _ in range(total):
        at = min(range(len(has)), key=lambda place: (level[place], place))
        level[at], found[at] = level[at] + 1, found[at] + 1
    assert dealt("water_filling", total, has) == found


@settings(calmly, max_examples=40)
@given(total=st.integers(0, 6), has=st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_no_other_dealing_leaves_parts_more_alike_than_water(total, has):
    every = (one for one in itertools.product(range(total + 1), repeat=len(has)) if sum(one) == total)
    best = min(sum((own + more) ** 2 for own, more in zip(has, one, strict=True)) for one in every)
    found = dealt("water_filling", total, has)
    assert sum((own + more) ** 2 for own, more in zip(has, found, strict=True)) == best


def test_kinds_share_the_total_and_members_of_a_kind_share_alike():
    kinds = ["rare", "common", "common", "common", "common"]
    found = {name: dealt_by_kind(8, kinds, lookup(Allocator, name)()) for name in names(Allocator)}
    assert found == {"equal": [4, 1, 1, 1, 1], "inverse": [8, 0, 0, 0, 0], "water_filling": [6, 1, 1, 0, 0]}
