"""Which examples a document is shown with, against definitions written out over random similarities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import lookup
from fedloom.contracts.synthesis import Selection, Selector, Similarities, Where
from fedloom.synthesis.vectors import similarities

RETRIEVING = ("per_datum", "mmr", "client_mean", "client_shortlist")
ALL = (*RETRIEVING, "fixed", "random", "zero_shot")


def made(name, **settings):
    return lookup(Selector, name)(**settings)


def some(seed, n_documents=6, n_rows=9):
    """Similarities of random unit vectors, all of them positive."""
    draw = np.random.Generator(np.random.PCG64(seed))
    vectors = draw.random((n_documents + n_rows, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    own, pool = vectors[:n_documents], vectors[n_documents:]
    return Similarities(own @ pool.T, pool @ pool.T)


def where(near, client="anna"):
    return Where(0, client, tuple(f"document {at}" for at in range(len(near.to_pool_NM))))


def chosen(name, near, **settings):
    return [selection.rows for selection in made(name, **settings)(near, where(near))]


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("seed", range(25))
def test_each_document_gets_its_own_nearest_rows_the_nearest_last(seed, k):
    near = some(seed)
    expected = [
        tuple(sorted(sorted(range(9), key=lambda row: (-line[row], row))[:k], key=lambda row: (line[row], -row)))
        for line in near.to_pool_NM
    ]
    assert chosen("per_datum", near, k=k) == expected


@pytest.mark.parametrize("seed", range(25))
def test_marginal_relevance_is_the_greedy_choice_of_its_formula(seed):
    near, relevance = some(seed), 0.7
    for line, found in zip(near.to_pool_NM, chosen("mmr", near, k=4), strict=True):
        taken = []
        for _ in range(4):
            gains = {
                row: relevance * line[row]
                - (1 - relevance) * max((near.within_pool_MM[row, other] for other in taken), default=0.0)
                for row in range(9)
                if row not in taken
            }
            taken.append(max(gains, key=gains.get))
        assert set(found) == set(taken)
        assert [line[row] for row in found] == sorted(line[row] for row in found)


@pytest.mark.parametrize("seed", range(25))
def test_a_client_shares_the_rows_nearest_in_the_mean(seed):
    near = some(seed)
    mean = [sum(line[row] for line in near.to_pool_NM) / 6 for row in range(9)]
    best = sorted(range(9), key=lambda row: (-mean[row], row))[:2]
    assert chosen("client_mean", near, k=2) == [tuple(reversed(best))] * 6


@pytest.mark.parametrize("seed", range(25))
def test_a_shortlist_holds_the_rows_that_win_most_often(seed):
    near = some(seed, n_documents=20)
    winners = [int(np.argmax(line)) for line in near.to_pool_NM]
    best = sorted(range(9), key=lambda row: (-winners.count(row), row))[:3]
    assert chosen("client_shortlist", near, k=3, sample=20) == [tuple(reversed(best))] * 20


@given(seed=st.integers(0, 1000), k=st.integers(1, 5))
def test_relevance_of_one_is_per_datum(seed, k):
    near = some(seed)
    assert chosen("mmr", near, k=k, relevance=1.0) == chosen("per_datum", near, k=k)


@given(seed=st.integers(0, 1000))
def test_with_one_document_the_retrieving_selectors_agree(seed):
    near = some(seed, n_documents=1)
    assert len({tuple(chosen(name, near, k=1)) for name in RETRIEVING}) == 1


@given(seed=st.integers(0, 1000), order=st.permutations(range(9)))
def test_another_order_of_the_pool_permutes_the_choice(seed, order):
    near, order = some(seed), list(order)
    other = Similarities(near.to_pool_NM[:, order], near.within_pool_MM[np.ix_(order, order)])
    for name in ("per_datum", "mmr", "client_mean"):
        assert [tuple(order[row] for row in rows) for rows in chosen(name, other, k=3)] == chosen(name, near, k=3)


def test_ties_go_to_the_earlier_row():
    near = Similarities(np.array([[0.5, 0.5, 0.2]]), np.eye(3))
    assert chosen("per_datum", near, k=1) == [(0,)]
    assert chosen("per_datum", near, k=2) == [(1, 0)]


@pytest.mark.parametrize("name", [name for name in ALL if name != "zero_shot"])
def test_more_examples_than_the_pool_has_are_refused(name):
    near = some(0, n_rows=2)
    with pytest.raises(ConfigError, match=r"selector\.k: found 3, the pool has 2 rows"):
        made(name, k=3)(near, where(near))


@pytest.mark.parametrize("name", RETRIEVING)
def test_a_document_that_nothing_resembles_is_shown_the_medoid_and_says_so(name):
    within = np.array([[1.0, 0.9, 0.8], [0.9, 1.0, 0.1], [0.8, 0.1, 1.0]])
    near = Similarities(np.array([[0.01, 0.0, 0.02], [0.0, 0.3, 0.1]]), within)
    first, second = made(name)(near, where(near))
    assert first == Selection((0,), fallback=True)
    assert not second.fallback
    assert made(name, fallback="zero_shot")(near, where(near))[0] == Selection((), fallback=True)


def test_controls_look_at_no_document():
    near, other = some(1), some(2)
    for name in ("fixed", "random", "zero_shot"):
        assert chosen(name, near) == chosen(name, other)
    assert chosen("zero_shot", near) == [()] * 6
    assert len(set(chosen("fixed", near, k=3))) == 1
    assert len(set(chosen("random", near, k=1))) > 1


def test_a_document_draws_its_random_examples_whoever_is_beside_it():
    near = some(3)
    every = made("random", k=2)(near, where(near))
    fewer = Similarities(near.to_pool_NM[2:], near.within_pool_MM)
    assert made("random", k=2)(fewer, Where(0, "anna", where(near).documents[2:])) == every[2:]


@pytest.mark.parametrize("name", ALL)
def test_selectors_that_look_at_other_documents_say_so(name):
    settings = {} if name == "zero_shot" else {"k": 2}
    selector, near = made(name, **settings), some(4, n_documents=12)
    alone = [
        selector(Similarities(near.to_pool_NM[at : at + 1], near.within_pool_MM), Where(0, "anna", (document,)))[0]
        for at, document in enumerate(where(near).documents)
    ]
    together = selector(near, where(near))
    assert (alone == together) == (not selector.brings_in())


def test_alike_documents_are_found_by_their_words():
    pool = ["the baker sells red bread", "the doctor names a dose", "two and three make five"]
    near = similarities(["a dose that the doctor named", "bread from the baker", "Фрукты"], pool)
    assert near.to_pool_NM[:2].argmax(axis=1).tolist() == [1, 0]
    assert near.to_pool_NM[2].tolist() == [0.0, 0.0, 0.0]
    assert np.allclose(np.diag(near.within_pool_MM), 1.0)
