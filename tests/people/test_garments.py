from dataclasses import fields

import numpy as np
import pytest

from fedloom.base import rng
from fedloom.base.errors import ConfigError
from fedloom.people.bodies.procedural import Procedural
from fedloom.people.garments import BOTTOMS, TOPS, garment
from fedloom.people.labels import LOWER, UPPER
from fedloom.people.meshes import Mesh, areas, edges, is_edge_manifold, vertex_normals
from fedloom.people.nearest import NearestPoints

pytestmark = pytest.mark.slow

BODY = Procedural().load


def skin():
    return Mesh(BODY().template_M3, BODY().faces_F3)


LOOPS = {"tee": 4, "long_sleeve": 4, "trousers": 3, "shorts": 3, "skirt": 2, "dress": 6}
KINDS = pytest.mark.parametrize("kind", LOOPS)
SEEDS = range(2)


def made(kind, seed=0):
    return garment(BODY(), kind, rng.numpy_random("garments", kind, seed))


@KINDS
def test_cloth_is_a_manifold_with_the_edges_of_its_kind(kind):
    for seed in SEEDS:
        one = made(kind, seed)
        assert is_edge_manifold(one.rest.faces) and areas(one.rest).min() > 0
        assert len(one.loops) == LOOPS[kind]
        assert sum(map(len, one.loops)) == (edges(one.rest.faces)[1] == 1).sum()


@KINDS
def test_cloth_lies_outside_the_body_and_not_far(kind):
    """A dress is loose below the waist, where it spans both legs."""
    for seed in SEEDS:
        one = made(kind, seed)
        near = NearestPoints(skin())(one.rest.vertices)
        normals = vertex_normals(skin())[BODY().faces_F3[near.face_N, 0]]
        outside = ((one.rest.vertices - near.points_N3) * normals).sum(1)
        assert (outside > 0).mean() > 0.99 and outside.min() > -0.005
        assert (near.distance_N[one.on_body_N >= 0] < 0.09).all()


@KINDS
def test_offsets_lead_from_the_body_to_the_cloth(kind):
    one = made(kind)
    on = one.on_body_N >= 0
    assert on.all() == (kind not in ("skirt", "dress")) and on.any() == (kind != "skirt")
    found = BODY().template_M3[one.on_body_N[on]] + one.offsets_N3[on]
    assert np.allclose(found, one.rest.vertices[on], atol=1e-12)
    assert not one.offsets_N3[~on].any()
    assert np.array_equal(one.weights_NJ[on], BODY().weights_MJ[one.on_body_N[on]])
    assert np.abs(one.weights_NJ.sum(1) - 1).max() < 1e-9 and one.weights_NJ.min() >= 0


@KINDS
def test_class_and_reach_are_those_of_the_kind(kind):
    one = made(kind)
    x, y, _ = one.rest.vertices.T
    assert one.label == (UPPER if kind in TOPS else LOWER) and set(one.rest.labels.tolist()) == {one.label}
    hems = {"tee": (0.8, 1), "long_sleeve": (0.8, 1), "trousers": (0.05, 0.2), "shorts": (0.45, 0.65)}
    low, high = hems.get(kind, (0.38, 0.65))
    assert low < y.min() < high
    assert (y.max() > 1.4) == (kind in TOPS)
    sleeves = {"tee": (0.28, 0.42), "long_sleeve": (0.6, 0.69), "dress": (0.2, 0.37)}
    low, high = sleeves.get(kind, (0, 0.6))
    assert low < np.abs(x).max() < high


@pytest.mark.parametrize("bottom", [kind for kind in BOTTOMS if kind != "skirt"])
@pytest.mark.parametrize("top", [kind for kind in TOPS if kind != "dress"])
def test_lower_lies_under_upper_where_they_meet(top, bottom):
    for seed in SEEDS:
        upper, lower = made(top, seed), made(bottom, seed)
        common, over, under = np.intersect1d(upper.on_body_N, lower.on_body_N, return_indices=True)
        inner = ~np.isin(over, np.concatenate(upper.loops)) & ~np.isin(under, np.concatenate(lower.loops))
        normals = vertex_normals(skin())[common]
        gap = ((upper.offsets_N3[over] - lower.offsets_N3[under]) * normals).sum(1)
        assert inner.sum() > 100 and gap[inner].min() > 0


def test_same_numbers_same_garment_and_others_another():
    one, same, other = made("tee"), made("tee"), made("tee", 1)
    for told in fields(one):
        mine, its = vars(one)[told.name], vars(same)[told.name]
        if isinstance(mine, np.ndarray):
            assert np.array_equal(mine, its)
    assert np.array_equal(one.rest.vertices, same.rest.vertices)
    assert one.rest.vertices.shape != other.rest.vertices.shape or not np.array_equal(
        one.rest.vertices, other.rest.vertices
    )


def test_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match=r"garments: found 'toga', allowed are tee, .*skirt") as told:
        made("toga")
    assert "\n" not in str(told.value)
