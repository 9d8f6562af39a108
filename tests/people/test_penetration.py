import numpy as np
import pytest

from fedloom.people.layer_metrics import edge_strain, penetration
from fedloom.people.meshes import Mesh, part
from fedloom.people.nearest import NearestPoints
from fedloom.people.penetration import Collider, layered, relieved

pytestmark = pytest.mark.slow


def ball(radius, n_rings=24, n_columns=48):
    """A sphere of triangles and, as rows of its faces, which lie above the equator."""
    up, around = np.linspace(0, np.pi, n_rings + 1), np.linspace(0, 2 * np.pi, n_columns, endpoint=False)
    rings = [[(np.sin(u) * np.cos(a), np.cos(u), np.sin(u) * np.sin(a)) for a in around] for u in up[1:-1]]
    vertices = np.array([(0, 1, 0), *(point for ring in rings for point in ring), (0, -1, 0)])
    here = 1 + np.arange((n_rings - 1) * n_columns).reshape(-1, n_columns)
    beside = np.roll(here, -1, axis=1)
    faces = [(0, b, a) for a, b in zip(here[0], beside[0], strict=True)]
    for ring in range(n_rings - 2):
        quads = zip(here[ring], beside[ring], beside[ring + 1], here[ring + 1], strict=True)
        faces += [face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))]
    faces += [(len(vertices) - 1, a, b) for a, b in zip(here[-1], beside[-1], strict=True)]
    return Mesh(radius * vertices, np.array(faces))


def cap(radius, low=-0.2):
    whole = ball(radius)
    middles = whole.vertices[whole.faces].mean(1)
    return part(whole, whole.faces[middles[:, 1] > low * radius])[0]


@pytest.fixture(scope="module")
def body():
    return ball(0.3)


def test_a_dent_within_a_ball_is_brought_out_and_the_rest_hardly_moves(body):
    cloth = cap(0.315)
    dented = cloth.vertices.copy()
    near = cloth.vertices @ np.array([0.6, 0.8, 0]) > 0.28
    dented[near] *= 0.29 / 0.315
    bad = cloth.moved(dented)
    before = penetration(bad.vertices, NearestPoints(body))
    assert before.percent > 2
    good = relieved(bad, [Collider(body)])
    assert penetration(good.vertices, NearestPoints(body)).percent == 0
    far = cloth.vertices @ np.array([0.6, 0.8, 0]) < 0  # from the dent, a quarter of the way round
    assert np.abs(good.vertices - bad.vertices)[far].max() < 0.002
    assert edge_strain(cloth, good.vertices) < edge_strain(cloth, bad.vertices)


def test_what_lies_outside_is_left_as_it_is(body):
    cloth = cap(0.32)
    assert relieved(cloth, [Collider(body)]).vertices is cloth.vertices


def test_a_garment_wholly_within_comes_out(body):
    out = relieved(cap(0.29), [Collider(body)])
    away = np.linalg.norm(out.vertices, axis=1)
    assert away.min() > 0.3 and away.max() < 0.31


def test_the_upper_comes_to_lie_over_the_lower_but_not_beside_its_edge(body):
    lower, upper = cap(0.30, low=0.3), cap(0.302, low=-0.4)
    one, other = layered([lower, upper], body)
    lower_m, upper_m = (np.linalg.norm(mesh.vertices, axis=1) for mesh in (one, other))
    assert lower_m.min() > 0.302
    over = other.vertices[:, 1] > 0.18  # well above the lower one's edge
    assert upper_m[over].min() > lower_m.max() - 0.001
    beside = other.vertices[:, 1] < 0
    assert upper_m[beside].max() < lower_m.max()


def test_an_open_surface_pulls_only_what_is_shortly_behind_it():
    collider = Collider(cap(0.3, low=0.5))
    top = np.array([0, 1.0, 0])
    points = np.stack([0.299 * top, 0.304 * top, 0.25 * top, np.array([0.299, 0, 0])])
    which, targets = collider.pulls(points)
    assert which.tolist() == [0]
    assert np.abs(targets[0] - 0.305 * top).max() < 2e-3
