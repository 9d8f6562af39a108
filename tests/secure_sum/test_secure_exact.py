"""The sum is that of the whole numbers, bit for bit, whoever is lost and when."""

import tracemalloc
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.base.errors import DataError, FedloomError
from fedloom.secure_sum.graph import smallest
from fedloom.secure_sum.party import PHASES
from fedloom.secure_sum.terms import SecureSumError, packed
from support.secure_sums import Table, exact, names_of, rows_of, seeded, terms_of
from support.whole_sum import simulate

BEFORE_ROW = PHASES[: PHASES.index("mask") + 1]


def losses(names, most):
    """Every subset of at most so many, each lost at each phase."""
    for n_lost in range(most + 1):
        for lost in combinations(names, n_lost):
            for phases in product(PHASES, repeat=n_lost):
                yield dict(zip(lost, phases, strict=True))


def summing(lost, names):
    return tuple(name for name in names if lost.get(name) not in BEFORE_ROW)


@pytest.mark.parametrize(("threshold", "most"), [(4, 1), (3, 2)])
def test_sum_is_exact_for_every_subset_lost_at_each_phase(threshold, most):
    terms = terms_of(5, threshold=threshold, min_clients=3)
    rows = rows_of(terms)
    cases = list(losses(terms.clients, most))
    assert len(cases) == {1: 26, 2: 276}[most]
    for lost in cases:
        told = simulate(rows, terms, lost_at=lost, random=seeded(1))
        assert told.survivors == summing(lost, terms.clients)
        assert told.sum_S.tolist() == exact(rows, told.survivors, terms.size), lost


def test_the_threshold_for_five_is_the_least_above_two_thirds():
    size = smallest(5, colluding=0.2, lost=0.2)
    assert (size.degree, size.threshold) == (4, 4)


@pytest.mark.parametrize("phase", PHASES)
def test_one_more_lost_than_the_threshold_allows_gives_no_sum(phase):
    terms = terms_of(5, threshold=4, min_clients=3)
    with pytest.raises(SecureSumError, match="at least"):
        simulate(rows_of(terms), terms, lost_at=dict.fromkeys(terms.clients[:2], phase))


@pytest.mark.slow
def test_two_hundred_clients_of_degree_68_with_ten_lost():
    names = names_of(200)
    terms = terms_of(200, size=3, degree=68, threshold=43, min_clients=150)
    rows = rows_of(terms)
    lost = {names[place]: PHASES[place % 5] for place in range(3, 200, 20)}
    told = simulate(rows, terms, lost_at=lost)
    assert len(lost) == 10
    assert told.survivors == summing(lost, names)
    assert told.sum_S.tolist() == exact(rows, told.survivors, terms.size)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_size_and_any_loss_within_the_bound_is_exact(data):
    n = data.draw(st.integers(3, 8))
    threshold = data.draw(st.integers(2, n))
    terms = terms_of(n, size=data.draw(st.integers(1, 9)), threshold=threshold)
    names = data.draw(st.lists(st.sampled_from(terms.clients), max_size=min(n - threshold, n - 2), unique=True))
    lost = {name: data.draw(st.sampled_from(PHASES)) for name in names}
    rows = rows_of(terms, data.draw(st.integers(0, 9)))
    told = simulate(rows, terms, lost_at=lost)
    assert told.sum_S.tolist() == exact(rows, summing(lost, terms.clients), terms.size)


def test_rows_longer_than_a_piece_of_mask_are_exact_and_left_as_they_were():
    terms = terms_of(3, size=2**15 + 5, threshold=2)
    rows = rows_of(terms)
    before = {name: row.copy() for name, row in rows.items()}
    told = simulate(rows, terms, lost_at={terms.clients[0]: "mask"})
    assert (told.sum_S == rows[terms.clients[1]] + rows[terms.clients[2]]).all()
    assert all((rows[name] == before[name]).all() for name in rows)


def test_masked_rows_are_uniform_and_unlike_the_rows():
    terms = terms_of(3, size=2**16, threshold=2)
    table = Table(terms, until="share")
    zeros = np.zeros(terms.size, dtype=np.uint32)
    for name, party in table.parties.items():
        masked = party.mask(table.boxes[name], zeros).row_S
        for shift in (0, 8, 16, 24):
            counts = np.bincount((masked >> np.uint32(shift)) & np.uint32(255), minlength=256)
            chi_square = float(((counts - 256) ** 2 / 256).sum())
            # 255 degrees of freedom: mean 255, deviation 22.6; the keys are the same in every run
            assert 150 < chi_square < 370


def test_the_collector_holds_one_sum_and_one_row_that_comes_in():
    terms = terms_of(4, size=500_000, threshold=3, min_clients=2)
    table = Table(terms, until="share")
    row = 4 * terms.size
    tracemalloc.start()
    for name, party in table.parties.items():
        masked = party.mask(table.boxes[name], table.rows[name])
        del table.boxes[name]
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        table.collector.take_row(masked)
        after, peak = tracemalloc.get_traced_memory()
        assert max(after, peak) - before < row / 10
        del masked
    held = [one for one in vars(table.collector).values() if isinstance(one, np.ndarray)]
    tracemalloc.stop()
    assert [one.shape for one in held] == [(terms.size,)]


def test_the_collector_never_holds_an_unmasked_row_even_of_a_lost_client():
    """What a lost client masked and never sent is nowhere; the others' rows are only in the sum."""
    terms = terms_of(5, threshold=3)
    table = Table(terms, until="confirm", lost=terms.clients[:1])
    for name, party in table.left.items():
        table.collector.take_opened(party.unmask(table.confirmations[name]))
    total = table.collector.total()
    held = [one for one in vars(table.collector).values() if isinstance(one, np.ndarray)]
    assert [one is total for one in held] == [True]
    assert all((masked.row_S != table.rows[name]).any() for name, masked in table.masked.items())


def test_simulate_refuses_rows_of_others():
    terms = terms_of(3, threshold=2)
    rows = rows_of(terms)
    with pytest.raises(DataError, match="one of each"):
        simulate({name: rows[name] for name in terms.clients[:2]}, terms)


@pytest.mark.parametrize(
    "wrong",
    [
        {"degree": 3},
        {"degree": 0},
        {"threshold": 1},
        {"threshold": 7},
        {"min_clients": 1},
        {"min_clients": 7},
        {"size": 0},
        {"round": -1},
    ],
)
def test_terms_refuse_what_is_not_safe(wrong):
    with pytest.raises(FedloomError, match="allowed"):
        terms_of(6, **wrong)


def test_terms_refuse_names_out_of_order():
    terms = terms_of(3)
    with pytest.raises(FedloomError, match="sorted"):
        type(terms)("run", 0, terms.clients[::-1], 4, 2, 2, 2)


def test_no_two_lists_of_parts_are_packed_alike():
    parts = [(), (b"",), (b"", b""), (b"ab", b"c"), (b"a", b"bc"), (b"abc",)]
    assert len({packed(*one) for one in parts}) == len(parts)


def test_every_term_is_in_the_digest():
    terms = terms_of(5)
    others = [terms_of(5, **one) for one in ({"round": 1}, {"run": "b"}, {"size": 5}, {"threshold": 4})]
    others += [terms_of(5, min_clients=3), terms_of(5, degree=2, threshold=2), terms_of(6, degree=4)]
    assert len({one.digest for one in (terms, *others)}) == 8
