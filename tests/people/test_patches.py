import numpy as np
import pytest

from fedloom.base.errors import DataError
from fedloom.people.meshes import boundary_loops, is_edge_manifold
from fedloom.people.patches import closed, patch


def sheet(n):
    here = np.arange(n * n).reshape(n, n)
    a, b, c, d = (here[i : n - 1 + i, j : n - 1 + j].ravel() for i, j in ((0, 0), (0, 1), (1, 1), (1, 0)))
    return np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def test_random_masks_become_one_clean_piece_within_them():
    faces, random = sheet(20), np.random.default_rng(0)
    for _ in range(20):
        inside = random.random(400) < 0.8
        found = patch(faces, inside)
        assert inside[found].all() and is_edge_manifold(found)
        edge = np.concatenate(boundary_loops(found))
        assert len(np.unique(edge)) == len(edge)  # no loop touches another or itself


def test_the_largest_piece_stays_and_an_ear_goes():
    faces = sheet(10)
    rows = np.arange(100) // 10
    assert set(np.unique(patch(faces, (rows < 6) | (rows > 7)))) <= set(range(60))
    with pytest.raises(DataError, match="found no part of the body"):
        patch(faces, rows < 0)


def test_holes_are_closed_and_edges_stay_where_they_are():
    rows, columns = np.divmod(np.arange(400), 20)
    block = (rows > 4) & (rows < 15) & (columns > 4) & (columns < 15)
    holed = block & ~((rows > 8) & (rows < 11) & (columns > 8) & (columns < 11))
    assert np.array_equal(closed(sheet(20), holed), block)
    assert np.array_equal(closed(sheet(20), block), block)
