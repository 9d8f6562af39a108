import numpy as np
import pytest

from fedloom.base.errors import DataError
from fedloom.people.meshes import areas
from fedloom.people.potts import SurfacePoints, affinity, mean_field, near_pairs, surface_points, without
from support.balls import ball

GRID = [(a, b) for a in range(6) for b in range(a + 1, 6) if b - a == 3 or (b - a == 1 and a != 2)]
"""The edges of 2 x 3 points."""


def grid():
    points = np.array([(0.02 * (at % 3), 0.02 * (at // 3), 0) for at in range(6)])
    return SurfacePoints(points, np.tile((0.0, 0.0, 1.0), (6, 1)), np.ones(6), np.array(GRID))


def energy(labels, evidence, pull, strength):
    own = -sum(evidence[point, label] for point, label in enumerate(labels))
    return own + strength * sum(pull[a, b] * (labels[a] != labels[b]) for a, b in GRID)


def test_one_round_of_a_mean_field_is_that_of_a_loop():
    evidence, pull = np.random.default_rng(0).normal(size=(6, 3)), affinity(grid(), 0.03, None)
    by_hand = evidence.copy()
    for one in range(6):
        for kind in range(3):
            for other in range(6):
                share = np.exp(evidence[other, kind]) / np.exp(evidence[other]).sum()
                by_hand[one, kind] += 0.7 * pull.toarray()[one, other] * share
    np.testing.assert_allclose(mean_field(evidence, pull, 0.7, 1), by_hand)


def test_labels_are_mostly_the_best_of_all_labellings_and_never_worse_than_without_neighbours():
    pull, best = affinity(grid(), 0.03, None), 0
    for seed in range(40):
        evidence = 3 * np.random.default_rng(seed).normal(size=(6, 3))
        found, alone = mean_field(evidence, pull, 0.6, 60).argmax(1), evidence.argmax(1)
        cost, least = (
            energy(found, evidence, pull.toarray(), 0.6),
            min(energy(labels, evidence, pull.toarray(), 0.6) for labels in np.ndindex(*(3,) * 6)),
        )
        assert cost <= energy(alone, evidence, pull.toarray(), 0.6) + 1e-9
        best += cost <= least + 1e-9
    assert best >= 36


def test_one_point_that_disagrees_gives_in_and_one_that_is_sure_does_not():
    evidence = np.tile((1.0, 0.0), (6, 1))
    evidence[1] = (0.0, 0.5)
    pull = affinity(grid(), 0.03, None)
    assert mean_field(evidence, pull, 1.2, 30).argmax(1).tolist() == [0] * 6
    evidence[1] = (0.0, 9.0)
    assert mean_field(evidence, pull, 1.2, 30).argmax(1).tolist() == [0, 1, 0, 0, 0, 0]


def test_the_vertices_of_a_mesh_share_its_area_and_are_neighbours_along_its_edges():
    mesh = ball(0.5, n=12)
    where = surface_points(mesh)
    assert where.areas_N.sum() == pytest.approx(areas(mesh).sum()) and (where.areas_N >= 0).all()
    along = {tuple(sorted((face[at], face[at - 1]))) for face in mesh.faces.tolist() for at in range(3)}
    assert {tuple(pair) for pair in where.pairs_E2.tolist()} == along
    pull = affinity(where, 0.03, None)
    assert pull.nnz == 2 * len(along) and np.abs(pull - pull.T).max() == 0


def test_near_pairs_are_those_of_a_search_over_all_points():
    points = np.random.default_rng(0).normal(size=(40, 3))
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    wanted = {tuple(sorted((one, other))) for one in range(40) for other in apart[one].argsort()[1:5].tolist()}
    assert {tuple(pair) for pair in near_pairs(points, 4).tolist()} == wanted
    few = near_pairs(points[:3], 8)
    assert few.tolist() == [[0, 1], [0, 2], [1, 2]]


def test_a_class_that_is_left_out_has_nothing_and_the_others_keep_theirs():
    evidence = np.arange(6.0).reshape(2, 3)
    assert without(evidence, [1], -60.0).tolist() == [[0, -60, 2], [3, -60, 5]] and evidence[0, 1] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normals_N3": np.ones((5, 3))}, "found shapes"),
        ({"areas_N": np.ones((6, 1))}, "found shapes"),
        ({"colours_N3": np.ones((6, 4))}, "found colours"),
        ({"pairs_E2": np.array([(0, 6)])}, "beyond 6 points"),
        ({"pairs_E2": np.array([(-1, 2)])}, "beyond 6 points"),
    ],
)
def test_points_that_do_not_fit_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        SurfacePoints(**(vars(grid()) | change))
