import numpy as np
import pytest

from fedloom.base.errors import DataError
from fedloom.base.plugin import lookup
from fedloom.people.body import BodyModel
from fedloom.people.dressed import dressed
from fedloom.people.layer_metrics import edge_strain, penetration
from fedloom.people.meshes import Mesh, boundary_loops, vertex_normals
from fedloom.people.nearest import NearestPoints
from fedloom.people.penetration import Collider, relieved
from fedloom.people.smpld import Offsets, carried, local_frames, registered, worn
from fedloom.people.stance import Stance, shaped

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def body():
    return lookup(BodyModel, "procedural")().load()


@pytest.fixture(scope="module")
def people(body):
    return [dressed(body, "swap", n) for n in range(12)]


def stance(person):
    return Stance(person.betas_S, person.pose_J3, person.translation_3)


def top(person):
    """A person's top as it stands, where its vertices stand on the body, and its true offsets."""
    kind, garment = list(person.garments.items())[-1]
    offsets = np.zeros_like(person.body.template_M3)
    offsets[garment.on_body_N] = garment.offsets_N3
    true = Offsets(offsets, garment.on_body_N[garment.rest.faces])
    return person.garment_meshes[kind], garment.on_body_N, true


def test_worn_by_its_own_person_a_garment_is_what_it_was(body, people):
    for person in people[:2]:
        mesh, _, offsets = top(person)
        back = worn(offsets, body, person.betas_S, stance(person))
        assert np.abs(back.vertices - mesh.vertices).max() < 1e-9
        assert np.array_equal(back.faces, mesh.faces)


def test_frames_are_rotations_that_turn_with_the_surface(body):
    rest, turn = shaped(body, np.zeros(0)), np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    frames = local_frames(rest)
    assert np.abs(np.einsum("mab,mac->mbc", frames, frames) - np.eye(3)).max() < 1e-9
    assert np.abs(np.linalg.det(frames) - 1).max() < 1e-9
    assert np.abs(frames[:, :, 2] - vertex_normals(rest)).max() < 1e-12
    offsets = np.random.default_rng(0).normal(size=rest.vertices.shape)
    turned = carried(offsets, rest, rest.moved(rest.vertices @ turn.T))
    assert np.abs(turned - offsets @ turn.T).max() < 1e-9


@pytest.mark.slow
def test_twelve_swaps_leave_at_most_a_thousandth_within_the_body(body, people):
    before, after, change_mm = [], [], []
    for person, other in zip(people, people[1:] + people[:1], strict=True):
        mesh, own_N, offsets = top(person)
        raw = worn(offsets, body, person.betas_S, stance(other))
        collider = Collider(other.body_mesh)
        done, near = relieved(raw, [collider]), collider.nearest
        before.append(penetration(raw.vertices, near).percent)
        after.append(penetration(done.vertices, near).percent)
        rest = shaped(body, person.betas_S)
        lying = rest.vertices[own_N] + offsets.offsets_M3[own_N]
        own = NearestPoints(rest).signed(lying)[0]
        change_mm.append(1000 * np.abs(near.signed(done.vertices)[0] - own).mean())
        assert edge_strain(Mesh(lying, mesh.faces), done.vertices) < 0.25
    assert np.mean(after) <= 0.1 and np.mean(after) < np.mean(before)
    assert np.mean(change_mm) < 1.0


def test_registration_finds_a_garment_on_the_bodys_topology(body, people):
    person = people[1]
    mesh, theirs, true = top(person)
    # Its vertices in another order and none of them the body's: only the surface is given.
    order = np.random.default_rng(0).permutation(len(mesh.vertices))
    scan = Mesh(mesh.vertices[order], np.argsort(order)[mesh.faces])
    found = registered(scan, body, stance(person))
    again = worn(found, body, person.betas_S, stance(person))
    assert 1000 * NearestPoints(scan)(again.vertices).distance_N.mean() < 1
    assert 1000 * NearestPoints(again)(scan.vertices).distance_N.mean() < 1
    assert len(boundary_loops(found.faces_F3)) == 4
    ours = np.unique(found.faces_F3)
    both = np.intersect1d(ours, theirs)
    assert len(both) > 0.95 * len(np.union1d(ours, theirs))
    # How far off the body, that is: a surface does not tell how cloth slid along itself.
    outwards = vertex_normals(shaped(body, person.betas_S))
    off = ((found.offsets_M3 - true.offsets_M3) * outwards).sum(1)[both]
    assert 1000 * np.abs(off).mean() < 2
    outside = np.setdiff1d(np.arange(len(body.template_M3)), ours)
    assert np.abs(found.offsets_M3[outside]).max() == 0


def test_what_cannot_be_registered_is_refused(body, people):
    with pytest.raises(DataError, match="found a closed surface"):
        registered(people[0].body_mesh, body, stance(people[0]))
    scan = top(people[0])[0]
    with pytest.raises(DataError, match="found no part of the body"):
        registered(scan.moved(scan.vertices + np.array([0, 0, 3.0])), body, stance(people[0]))
