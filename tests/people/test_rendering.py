import math

import torch

from fedloom.people.rendering import _drawn, rays_of, rendered, sampled, spans, weights_of
from fedloom.people.scene import scene_of
from people.test_field import built
from support.people_runs import person


def test_weights_are_those_of_a_slow_loop_over_samples():
    drawn = torch.Generator().manual_seed(0)
    signed, delta = torch.randn(7, 5, generator=drawn) * 0.01, torch.rand(7, 5, generator=drawn) * 0.02
    found = weights_of(signed, delta, torch.tensor(0.006))
    for ray in range(7):
        left = 1.0
        for at in range(5):
            s = signed[ray, at].item()
            inside = 0.5 * math.exp(-s / 0.006) if s > 0 else 1 - 0.5 * math.exp(s / 0.006)
            alpha = 1 - math.exp(-inside / 0.006 * delta[ray, at].item())
            assert abs(found[ray, at].item() - left * alpha) < 1e-5
            left *= 1 - alpha


def test_places_are_drawn_as_often_as_their_share_says():
    edges = torch.tensor([[0.0, 1.0, 2.0, 4.0]])
    level = (torch.arange(1000)[None] + 0.5) / 1000
    found = _drawn(edges, torch.tensor([[0.5, 0.0, 0.5]]).clamp(min=1e-9), level)[0]
    assert found.sort().values.equal(found)
    assert (found < 1).float().mean() == 0.5 and (found > 2).float().mean() == 0.5
    assert abs(found[found > 2].mean().item() - 3) < 0.01


def test_a_picture_of_the_hull_has_the_persons_silhouette_and_depth():
    capture, _ = person(2, 64)
    scene, field = scene_of(capture), built(hull=True)
    rows, columns = torch.meshgrid(torch.arange(0, 64, 2), torch.arange(0, 64, 2), indexing="ij")
    pixels = torch.stack([columns.flatten(), rows.flatten()], dim=1) + 0.5
    with torch.no_grad():
        encoded = field.encoded(scene, [1, 2, 3, 4])
        where = spans(scene, rays_of(scene, 0, pixels))
        t = sampled(field, encoded, where, None)
        seen = rendered(field, encoded, where, t)
    assert (t.diff(dim=1) >= 0).all() and (t >= where.start_N[:, None] - 1e-5).all()
    alpha = torch.zeros(len(pixels)).index_copy(0, where.hits_R, seen.alpha_N)
    mask = scene.mask_VHW[0, rows.flatten(), columns.flatten()]
    assert (alpha - mask).abs().mean() < 0.04
    assert (alpha - mask).sum() > 0  # the mist before a surface widens it
    surely = seen.alpha_N > 0.95
    points = (where.rays.origin_N3 + seen.depth_N[:, None] * where.rays.direction_N3)[surely]
    hull = field.pooled(points, encoded).hull_N
    assert hull.abs().median() < 0.02
    assert torch.equal(t, sampled(field, encoded, where, None))


def test_the_gradient_of_a_picture_is_that_of_finite_differences():
    scene, field = scene_of(person(2, 64)[0]), built()
    weight = field.surface.get_submodule("4").get_parameter("bias")
    pixels = torch.tensor([[32.5, 30.5], [31.5, 20.5], [30.5, 44.5]])
    where = spans(scene, rays_of(scene, 0, pixels))
    t = sampled(field, field.encoded(scene, [1, 2, 3, 4]), where, None)

    def depth():
        return rendered(field, field.encoded(scene, [1, 2, 3, 4]), where, t).depth_N.sum()

    (slope,) = torch.autograd.grad(depth(), [weight])
    ends = []
    for step in (1e-2, -1e-2):
        with torch.no_grad():
            weight[0] += step
            ends.append(depth().item())
            weight[0] -= step
    assert abs(slope[0].item()) > 1e-3 and abs((ends[0] - ends[1]) / 2e-2 - slope[0].item()) < 0.03 * abs(
        slope[0].item()
    )
