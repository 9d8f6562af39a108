import tracemalloc

import numpy as np
import pytest

from fedloom.base.errors import DataError
from fedloom.people.cameras import looking_at, ring
from fedloom.people.meshes import Mesh
from fedloom.people.raster import averaged, rasterise, shaded


def soup(count=60, seed=0):
    drawn = np.random.default_rng(seed)
    middles = drawn.uniform(-0.6, 0.6, (count, 1, 3)) + np.array((0, 0.9, 0))
    return Mesh((middles + drawn.normal(0, 0.15, (count, 3, 3))).reshape(-1, 3), np.arange(3 * count).reshape(-1, 3))


CAMERA = ring(5, 40, 36)[1]


def slow(mesh, camera):
    """Each pixel's ray against each triangle (Möller and Trumbore, 1997)."""
    face, depth = np.full(camera.height * camera.width, -1), np.full(camera.height * camera.width, np.inf)
    shares = np.zeros((len(face), 3))
    for pixel, way in enumerate(camera.rays(camera.pixels())):
        for number, corners in enumerate(mesh.vertices[mesh.faces]):
            one, other = corners[1] - corners[0], corners[2] - corners[0]
            across = np.cross(way, other)
            scale = one @ across
            if abs(scale) < 1e-12:
                continue
            off = camera.centre - corners[0]
            u, turned = off @ across / scale, np.cross(off, one)
            v, t = way @ turned / scale, other @ turned / scale
            if min(u, v) >= 0 and u + v <= 1 and 0.01 < t < depth[pixel]:
                face[pixel], depth[pixel], shares[pixel] = number, t, (1 - u - v, u, v)
    shape = camera.height, camera.width
    return face.reshape(shape), depth.reshape(shape), shares.reshape(*shape, 3)


@pytest.mark.parametrize("near", [False, True])
def test_it_shows_what_a_ray_through_each_pixel_meets(near):
    """Also where triangles lie across the near plane, and behind the camera."""
    mesh, camera = soup(), looking_at((0.1, 0.9, 0.3), (0, 0.9, -1), 30, 24, 24) if near else CAMERA.resized(20, 18)
    found, (face, depth, shares) = rasterise(mesh, camera), slow(mesh, camera)
    assert (face >= 0).mean() > 0.2 and (found.face_HW == face).mean() > 0.999
    same = (found.face_HW == face) & (face >= 0)
    assert np.allclose(found.depth_HW[same], depth[same], rtol=1e-5)
    assert np.allclose(found.barycentric_HW3[same], shares[same], atol=1e-4)


def test_shares_sum_to_one_and_the_depth_of_a_plane_is_the_analytic_one():
    corners = np.array([(-1, 0, 0.3), (1, 0, -0.2), (1, 2, -0.4), (-1, 2, 0.1)])
    mesh = Mesh(corners, np.array([(0, 1, 2), (0, 2, 3)]))
    found = rasterise(mesh, CAMERA)
    hit = found.face_HW == 0
    assert np.allclose(found.barycentric_HW3[found.face_HW >= 0].sum(1), 1, atol=1e-6)
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    ways = CAMERA.rays(CAMERA.pixels()).reshape(*hit.shape, 3)
    right = (corners[0] - CAMERA.centre) @ normal / (ways @ normal)
    assert hit.sum() > 100 and np.allclose(found.depth_HW[hit], right[hit], rtol=1e-5)
    assert np.isinf(found.depth_HW[found.face_HW < 0]).all()


def test_the_order_of_triangles_says_nothing():
    mesh = soup()
    order = np.random.default_rng(1).permutation(len(mesh.faces))
    one, other = rasterise(mesh, CAMERA), rasterise(Mesh(mesh.vertices, mesh.faces[order]), CAMERA)
    assert np.array_equal(one.depth_HW, other.depth_HW)
    assert np.array_equal(one.face_HW, np.where(other.face_HW < 0, -1, order[other.face_HW]))


def test_faces_seen_from_behind_are_left_out_where_asked():
    corners = np.array([(-1, 0, 0), (1, 0, 0), (1, 2, 0)])
    camera = ring(1, 32, 32, elevations=(0,))[0]  # at +z
    for faces, seen in (([(0, 1, 2)], True), ([(0, 2, 1)], False)):
        mesh = Mesh(corners, np.array(faces))
        assert (rasterise(mesh, camera, cull=True).face_HW >= 0).any() == seen
        assert (rasterise(mesh, camera).face_HW >= 0).any()


def test_parts_of_pixels_add_up_to_what_a_finer_picture_shows():
    mesh = soup()
    fine = rasterise(mesh, CAMERA.resized(80, 72))
    parts = rasterise(mesh, CAMERA, supersample=2)
    assert np.array_equal(fine.face_HW, parts.face_HW)
    colours = np.random.default_rng(0).uniform(size=(len(mesh.vertices), 3))
    picture = averaged(shaded(parts, colours, mesh.faces), 2)
    assert picture.shape == (40, 36, 3)
    plain = shaded(rasterise(mesh, CAMERA), colours, mesh.faces)
    assert np.abs(picture - plain).mean() < 0.1
    mixed = shaded(parts, lambda face, share: np.einsum("nc,ncx->nx", share, colours[mesh.faces[face]]), mesh.faces)
    assert np.array_equal(mixed, shaded(parts, colours, mesh.faces))


def test_a_mesh_outside_the_picture_shows_nothing():
    mesh = soup()
    assert (rasterise(mesh.moved(mesh.vertices + np.array((50, 0, 0))), CAMERA).face_HW == -1).all()


def test_triangles_of_a_surface_leave_no_gap_between_them():
    """A grid whose corners lie on the middles of pixels: each pixel is in up to six triangles, at their edges."""
    camera = looking_at((0, 0, 4), (0, 0, 0), 40, 40, 40)
    steps = (np.arange(41) - 19.5) / 10  # a pixel is 0.1 m at 4 m
    grid = np.stack([*np.meshgrid(steps, steps), np.zeros((41, 41))], axis=-1).reshape(-1, 3)
    first = (np.arange(40)[:, None] * 41 + np.arange(40)).ravel()
    quads = np.stack([first, first + 1, first + 42, first + 41], axis=1)
    found = rasterise(Mesh(grid, np.concatenate([quads[:, :3], quads[:, [0, 2, 3]]])), camera)
    assert (found.face_HW[1:, :-1] >= 0).all()
    assert np.allclose(found.depth_HW[found.face_HW >= 0], 4)


@pytest.mark.slow
@pytest.mark.parametrize("backwards", [False, True])
def test_many_large_triangles_take_little_memory_in_whatever_order(backwards):
    """60 sheets, each over the whole picture: 11 million pixels of bounding boxes, of which one sheet's are seen."""
    camera = looking_at((0, 0, 4), (0, 0, 0), 300, 300, 300)
    corners = np.array([(-20, -20, 0), (20, -20, 0), (0, 30, 0.0)])
    sheets = np.concatenate([corners + np.array((0, 0, 0.01 * sheet)) for sheet in range(60)])
    mesh = Mesh(sheets, np.arange(180).reshape(-1, 3)[:: -1 if backwards else 1])
    tracemalloc.start()
    found = rasterise(mesh, camera)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.face_HW == (0 if backwards else 59)).all() and np.allclose(found.depth_HW, 3.41)
    assert peak < 4e8


def test_nothing_and_triangles_without_area_show_nothing():
    line = np.array([(0, 0, 0), (0, 1, 0), (0, 2, 0.0)])
    for faces in (np.array([(0, 1, 2), (1, 1, 1)]), np.zeros((0, 3), int)):
        assert (rasterise(Mesh(line, faces), CAMERA).face_HW == -1).all()


def test_a_vertex_that_is_not_finite_is_refused():
    mesh = soup()
    mesh.vertices[7, 1] = np.nan
    with pytest.raises(DataError, match="not finite"):
        rasterise(mesh, CAMERA)
