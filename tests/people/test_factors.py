import numpy as np
import pytest

from fedloom.base.errors import DataError
from fedloom.people.cameras import looking_at
from fedloom.people.captures import Parse, Photo
from fedloom.people.factors import Sights, boundary, sights, visibility
from fedloom.people.potts import SurfacePoints

HEIGHT, WIDTH, CLASSES = 12, 16, 6
CAMERA = looking_at((0.0, 0.0, 3.0), (0.0, 0.0, 0.0), 18.0, HEIGHT, WIDTH)


def photo(seed=0, coarse=1):
    random = np.random.default_rng(seed)
    told = random.dirichlet(np.ones(CLASSES), (HEIGHT // coarse, WIDTH // coarse)).transpose(2, 0, 1)
    told = told.repeat(coarse, axis=1).repeat(coarse, axis=2)
    mask = random.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
    return Photo(np.zeros((HEIGHT, WIDTH, 3), np.uint8), mask, CAMERA, Parse(told))


def points_at(pixels, depth):
    """Points that lie at pixels and depths, their normals towards the camera."""
    points = CAMERA.centre + np.asarray(depth)[:, None] * CAMERA.rays(np.asarray(pixels, float))
    normals = np.tile((0.0, 0.0, 1.0), (len(points), 1))
    return SurfacePoints(points, normals, np.full(len(points), 1e-3), np.zeros((0, 2), int))


def mixed(values, x, y):
    """Between the middles of the four pixels about a place."""
    result = 0.0
    for row in range(HEIGHT):
        for column in range(WIDTH):
            share = max(0, 1 - abs(x - column - 0.5)) * max(0, 1 - abs(y - row - 0.5))
            result = result + share * values[..., row, column]
    return result


def test_probabilities_and_masks_are_read_between_the_middles_of_pixels_and_without_background():
    pixels = np.random.default_rng(1).uniform((1, 1), (WIDTH - 1, HEIGHT - 1), (40, 2))
    shot, depth = photo(), np.full((1, HEIGHT, WIDTH), 3.0)
    told = sights(points_at(pixels, np.full(40, 3.01)), [shot], depth)
    for point, (x, y) in enumerate(pixels):
        person = mixed(shot.parse.probabilities, x, y)[1:]
        np.testing.assert_allclose(told.parsed_VNK[0, point], person / person.sum(), atol=1e-9)
        assert told.person_VN[0, point] == pytest.approx(mixed(shot.mask / 255.0, x, y))
    np.testing.assert_allclose(told.behind_VN, 0.01, atol=1e-9)


def test_the_distance_to_a_change_of_label_is_that_of_a_search_over_all_pixels():
    shot = photo(2, coarse=4)
    labels = shot.parse.labels
    edge = [
        (row, column)
        for row in range(HEIGHT)
        for column in range(WIDTH)
        for down, across in ((0, 1), (1, 0), (0, -1), (-1, 0))
        if 0 <= row + down < HEIGHT
        and 0 <= column + across < WIDTH
        and labels[row, column] != labels[row + down, column + across]
    ]
    middles = CAMERA.pixels()
    told = sights(points_at(middles, np.full(len(middles), 3.0)), [shot], np.full((1, HEIGHT, WIDTH), 3.0))
    for found, (x, y) in zip(told.edge_px_VN[0], middles, strict=True):
        assert found == pytest.approx(0.5 + min(np.hypot(y - 0.5 - row, x - 0.5 - column) for row, column in edge))


def test_a_view_of_one_label_has_no_edge_and_loses_nothing_by_it():
    flat = Photo(*vars(photo()).values())
    one = Parse(np.eye(CLASSES)[:, 4, None, None] * np.ones((1, HEIGHT, WIDTH)))
    told = sights(points_at([(8, 6)], [3.0]), [Photo(flat.rgb, flat.mask, CAMERA, one)], np.full((1, 12, 16), 3.0))
    assert boundary(told, 1.5)[0, 0] == 1 and told.labels_VN[0, 0] == 3


def test_out_of_the_picture_and_behind_the_camera_nothing_is_seen():
    shot = photo()
    where = points_at([(-0.5, 6), (WIDTH + 0.5, 6), (8, -0.5), (8, HEIGHT + 0.5), (8, 6)], [3.0, 3, 3, 3, -3])
    told = sights(where, [shot], np.full((1, HEIGHT, WIDTH), 3.0))
    assert (told.person_VN == 0).all() and (visibility(told, 0.02, 0.02, 0.25) == 0).all()


def test_visibility_falls_behind_the_surface_down_to_its_floor_and_to_nothing_beside_the_person():
    behind = np.array([[-1.0, 0.02, 0.04, 0.2, np.inf, np.nan, 0.0]])
    person = np.array([[1.0, 1, 1, 1, 1, 1, 0]])
    told = Sights(np.full((1, 7, 5), 0.2), person, behind, np.ones((1, 7)), np.ones((1, 7)))
    np.testing.assert_allclose(visibility(told, 0.02, 0.02, 0.25)[0], [1, 1, np.exp(-1), 0.25, 0.25, 0.25, 0])
    np.testing.assert_allclose(visibility(told, 0.02, 0.02, 0.0)[0], [1, 1, np.exp(-1), np.exp(-9), 0, 0, 0])


def test_where_the_depth_map_shows_nothing_a_point_is_not_seen_but_by_the_floor():
    told = sights(points_at([(8.5, 6.5)], [3.0]), [photo()], np.full((1, HEIGHT, WIDTH), np.inf))
    assert np.isinf(told.behind_VN[0, 0])
    assert visibility(told, 0.02, 0.02, 0.25)[0, 0] == pytest.approx(0.25 * told.person_VN[0, 0])


def test_odd_photographs_are_refused():
    shot, where, depth = photo(), points_at([(8, 6)], [3.0]), np.full((1, HEIGHT, WIDTH), 3.0)
    few, small = Parse(shot.parse.probabilities[:2]), Parse(shot.parse.probabilities[:, :6])
    for photos, depths, message in (
        ([], depth, "no photograph"),
        ([shot], depth[:, :4], "depth maps"),
        ([shot], depth[[0, 0]], "depth maps"),
        ([Photo(shot.rgb, shot.mask, CAMERA)], depth, "photo 0: found no parse"),
        ([Photo(shot.rgb, shot.mask, CAMERA, small)], depth, "photo 0: found a parse"),
        ([Photo(shot.rgb, shot.mask, CAMERA, few)], depth, r"parses of \[2\] classes"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            sights(where, photos, depths)
        assert "\n" not in str(caught.value)
