"""Sizes that are the least safe ones, and graphs that all draw alike."""

from fractions import Fraction
from math import comb

import pytest

from fedloom.base.errors import ConfigError
from fedloom.secure_sum.graph import SMALL, Size, neighbours, smallest
from support.secure_sums import names_of

SHARES = [(0.1, 0.1), (0.2, 0.1), (0.33, 0.1), (0.2, 0.3)]
TABLE = {
    100: [(22, 11), (32, 21), (42, 32), (58, 29)],
    1000: [(46, 26), (68, 43), (102, 72), (166, 83)],
}


@pytest.mark.parametrize("clients", TABLE)
def test_sizes_are_those_of_the_table(clients):
    found = [smallest(clients, colluding=colluding, lost=lost) for colluding, lost in SHARES]
    assert found == [Size(*size) for size in TABLE[clients]]


def chance(population, marked, draws, counts):
    """P[X in counts] of the hypergeometric distribution, exactly."""
    ways = sum(comb(marked, k) * comb(population - marked, draws - k) for k in counts if k <= draws)
    return Fraction(ways, comb(population, draws))


def bounds_hold(clients, n_colluding, n_lost, degree, threshold):
    collude = clients * chance(clients - 1, n_colluding, degree, range(threshold, degree + 1))
    lost = clients * chance(clients - 1, clients - 1 - n_lost, degree, range(threshold))
    bad = n_colluding + n_lost
    cut = comb(clients, 2) * Fraction(comb(clients - degree, bad - degree) if bad >= degree else 0, comb(clients, bad))
    return max(collude, cut) <= Fraction(1, 2**40) and lost <= Fraction(1, 2**20) and 2 * threshold >= degree


@pytest.mark.parametrize(("clients", "colluding", "lost"), [(60, 0.1, 0.1), (100, 0.2, 0.1), (150, 0.1, 0.2)])
def test_no_smaller_size_meets_the_bounds_by_exact_arithmetic(clients, colluding, lost):
    size = smallest(clients, colluding=colluding, lost=lost)
    bad = round(colluding * clients), round(lost * clients)
    assert bounds_hold(clients, *bad, size.degree, size.threshold)
    assert not bounds_hold(clients, *bad, size.degree, size.threshold - 1)
    for degree in range(2, size.degree, 2):
        assert not any(bounds_hold(clients, *bad, degree, threshold) for threshold in range(1, degree + 1))


@pytest.mark.parametrize("clients", [3, 5, 10, 48, SMALL - 1])
def test_few_clients_are_all_neighbours_with_more_than_two_thirds(clients):
    size = smallest(clients, colluding=0.0, lost=0.0)
    assert size.degree == clients - 1
    assert 3 * (size.threshold - 1) <= 2 * clients < 3 * size.threshold


@pytest.mark.parametrize(("clients", "colluding", "lost"), [(2, 0, 0), (10, -0.1, 0), (10, 0.5, 0.5), (10, 0.1, 0.4),
                                                            (10, 0.8, 0.1), (60, 0.5, 0.49)])  # fmt: skip
def test_what_no_graph_survives_is_refused(clients, colluding, lost):
    with pytest.raises(ConfigError, match="lower the shares"):
        smallest(clients, colluding=colluding, lost=lost)


def reached(graph, start):
    seen, left = {start}, [start]
    while left:
        new = set(graph[left.pop()]) - seen
        seen |= new
        left += new
    return seen


@pytest.mark.parametrize(("clients", "degree"), [(7, 2), (51, 8), (200, 68)])
def test_graphs_are_regular_mutual_and_connected(clients, degree):
    names = names_of(clients)
    graph = neighbours(names, degree, "run", 3)
    assert set(graph) == set(names)
    for name, others in graph.items():
        assert len(set(others)) == degree
        assert name not in others
        assert list(others) == sorted(others)
        assert all(name in graph[other] for other in others)
    assert reached(graph, names[0]) == set(names)


def test_the_graph_comes_from_the_public_seed_alone():
    names = names_of(60)
    assert neighbours(names, 8, "run", 3) == neighbours(names[::-1], 8, "run", 3)
    assert neighbours(names, 8, "run", 3) != neighbours(names, 8, "run", 4)


def test_fewer_clients_than_the_degree_asks_for_are_all_neighbours():
    graph = neighbours(names_of(4), 8, "run", 0)
    assert all(set(others) == set(graph) - {name} for name, others in graph.items())
