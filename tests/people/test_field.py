import dataclasses

import pytest
import torch
from scipy.stats import laplace
from torch import nn

from fedloom.models.starting import start_by_name
from fedloom.people.field import REACH_M, Field, density
from fedloom.people.photometric import gradient_norms
from fedloom.people.scene import scene_of
from support.people_runs import person


@pytest.fixture(scope="module")
def scene():
    return scene_of(person(2, 64)[0])


def built(n_cameras=0, *, hull=False):
    field = Field(n_cameras)
    start_by_name(field, 5, "person_field")
    if hull:
        field.start_at_hull()
    return field


def points_near(scene, count=300, seed=0):
    drawn = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(seed)) * torch.tensor([1.2, 1.6, 0.5])
    drawn = drawn - torch.tensor([0.6, -0.1, 0.25])
    from fedloom.people.scene import outlines

    hull = outlines(drawn, scene)[0].amax(0)
    return drawn[hull.abs() < 0.04][:count]


def test_there_are_48275_parameters_and_no_batch_norm():
    field = built()
    assert sum(one.numel() for one in field.parameters()) == 48_275
    kinds = {type(one) for one in field.modules()}
    assert nn.GroupNorm in kinds and not any(issubclass(one, nn.modules.batchnorm._BatchNorm) for one in kinds)
    counts = {name: sum(one.numel() for one in part.parameters()) for name, part in field.named_children()}
    assert counts == {"encoder": 38_720, "surface": 8_209, "blend": 1_345}
    assert sum(one.numel() for one in built(3).parameters()) == 48_275 + 3 * 12


@pytest.mark.parametrize(("size", "views"), [(48, 4), (64, 5), (80, 8)])
def test_any_number_of_views_of_any_size_pass_it(size, views):
    scene, field = scene_of(person(1, size, views)[0]), built()
    encoded = field.encoded(scene, range(views))
    assert encoded.features_V.shape == (views, 16, size // 2, size // 2)
    assert field.pooled(points_near(scene), encoded).signed_N.shape == (300,)


def test_density_is_the_laplace_distribution_over_its_width():
    signed = torch.linspace(-0.05, 0.05, 41, dtype=torch.float64)
    right = laplace(scale=0.006).cdf(-signed.numpy()) / 0.006
    assert torch.allclose(density(signed, torch.tensor(0.006, dtype=torch.float64)), torch.from_numpy(right))


def test_it_starts_at_the_hull_and_never_leaves_its_reach(scene):
    points = points_near(scene)
    at_hull, free = built(hull=True), built()
    for field, most in ((at_hull, 0.004), (free, REACH_M)):
        told = field.pooled(points, field.encoded(scene, range(5)))
        assert (told.signed_N - told.hull_N).abs().max() <= most


def test_the_order_of_the_sources_says_nothing(scene):
    field, points = built(), points_near(scene)
    one, other = (field.pooled(points, field.encoded(scene, order)) for order in ([0, 1, 3, 4], [4, 0, 3, 1]))
    assert torch.allclose(one.signed_N, other.signed_N, atol=1e-6)


def test_colours_are_a_blend_of_source_pixels_that_see_the_point(scene):
    field, points = built(), points_near(scene)
    encoded = field.encoded(scene, [0, 1, 2])
    pooled = field.pooled(points, encoded)
    colour = field.colour(pooled, points, torch.tensor([0.0, 0.0, -1.0]).expand_as(points), encoded)
    low, high = pooled.colours_VN3.amin(0), pooled.colours_VN3.amax(0)
    assert ((colour >= low - 1e-5) & (colour <= high + 1e-5)).all()
    alone = dataclasses.replace(pooled, seen_VN=torch.tensor([1.0, 0.0, 0.0])[:, None].expand_as(pooled.seen_VN))
    told = field.colour(alone, points, torch.tensor([0.0, 0.0, -1.0]).expand_as(points), encoded)
    assert torch.allclose(told, pooled.colours_VN3[0], atol=0.02)


def test_what_lies_behind_the_person_or_beside_it_is_not_seen(scene):
    field = built()
    encoded = field.encoded(scene, range(5))
    front, behind = torch.tensor([[0.0, 1.2, 0.13]]), torch.tensor([[0.0, 1.2, -0.13]])
    seen = [field.pooled(point, encoded).seen_VN[0].item() for point in (front, behind)]  # camera 0 looks from +z
    assert seen[0] > 0.8 and seen[1] < 0.01
    assert field.pooled(torch.tensor([[0.4, 1.7, 0.0]]), encoded).seen_VN[0].item() < 0.01  # not the person's pixel


def test_central_differences_agree_with_autograd_within_5_per_cent(scene):
    # Where linear interpolation has no kink within the step: a field of features that vary slowly.
    field = built()
    encoded = field.encoded(scene, range(5))
    points = points_near(scene, 200).requires_grad_()
    signed = field.pooled(points, encoded).signed_N
    (slope,) = torch.autograd.grad(signed.sum(), points)
    exact, finite = slope.norm(dim=1), gradient_norms(field, encoded, points.detach(), 0.006)
    assert (exact - finite).abs().mean() / exact.mean() < 0.05


def test_colours_of_cameras_are_undone_as_they_were_made(scene):
    field = built(2)
    with torch.no_grad():
        field.cameras.copy_(torch.eye(3, 4) + 0.1 * torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)))
    corrected = field.encoded(scene, [1]).colours_V[0].flatten(1).T
    assert torch.allclose(field.as_taken(corrected, 1), scene.rgb_V3HW[1].flatten(1).T, atol=1e-5)
    assert torch.allclose(field.as_taken(corrected, 3), field.as_taken(corrected, 1))  # places are taken in turn
