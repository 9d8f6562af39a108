"""Pictures of the field: where rays are sampled, and what light comes back along them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedloom.people.field import Encoded, Field, density
from fedloom.people.scene import Scene, box_span, coarse_hull

__all__ = ["Rays", "Rendered", "Spans", "rays_of", "rendered", "sampled", "spans", "weights_of"]

_COARSE, _SAMPLES = 64, 24
_NEAR_M, _CAP_M = 0.04, 0.6
_UNIFORM = 0.05
"""Share of samples that lie anywhere on the span, so that a surface is found where none was thought to be."""


@dataclass(frozen=True)
class Rays:
    """Rays from cameras; directions have length 1 along the optical axis, so that t is a depth."""

    origin_N3: Tensor
    direction_N3: Tensor


@dataclass(frozen=True)
class Spans:
    """The rays that pass the hull, or close by, and between which depths."""

    rays: Rays
    start_N: Tensor
    end_N: Tensor
    hits_R: Tensor
    """Which of all rays they are."""


@dataclass(frozen=True)
class Rendered:
    """What comes back along rays."""

    colour_N3: Tensor
    """Light of the surface; what shines through the rest is not in it."""
    alpha_N: Tensor
    hull_alpha_N: Tensor
    """What would be opaque of the visual hull, of the same density and at the same places."""
    depth_N: Tensor
    """Mean depth of the light, as far as the ray is opaque."""
    signed_NS: Tensor
    hull_NS: Tensor
    weights_NS: Tensor
    points_NS3: Tensor


def rays_of(scene: Scene, view: int, pixels_N2: Tensor) -> Rays:
    """Return the rays of one camera through pixels."""
    inverse_33 = torch.linalg.inv(scene.matrix_V33[view])
    inside_N3 = torch.cat([pixels_N2, torch.ones_like(pixels_N2[:, :1])], dim=1) @ inverse_33.T
    direction_N3 = inside_N3 @ scene.rotation_V33[view]
    return Rays(scene.centre_V3[view].expand_as(direction_N3), direction_N3)


def spans(scene: Scene, rays: Rays) -> Spans:
    """Return the rays that come within 4 cm of the hull, and there the first 0.6 m of it."""
    enter_N, leave_N = box_span(rays.origin_N3, rays.direction_N3)
    part_S = torch.linspace(0, 1, _COARSE, device=enter_N.device)
    t_NS = enter_N[:, None] + (leave_N - enter_N).clamp(min=0)[:, None] * part_S
    points = rays.origin_N3[:, None] + t_NS[:, :, None] * rays.direction_N3[:, None]
    near_NS = coarse_hull(points.reshape(-1, 3), scene.hull_XYZ).reshape(t_NS.shape) < _NEAR_M
    hits_N = near_NS.any(1) & (leave_N > enter_N)
    step_N = (leave_N - enter_N) / (_COARSE - 1)
    first_N = t_NS.gather(1, near_NS.float().argmax(1)[:, None])[:, 0] - step_N
    last_N = t_NS.gather(1, _COARSE - 1 - near_NS.flip(1).float().argmax(1)[:, None])[:, 0] + step_N
    end_N = torch.minimum(last_N, first_N + _CAP_M)
    kept = Rays(rays.origin_N3[hits_N], rays.direction_N3[hits_N])
    return Spans(kept, first_N[hits_N], end_N[hits_N], hits_N.nonzero()[:, 0])


def weights_of(signed_NS: Tensor, delta_NS: Tensor, beta: Tensor) -> Tensor:
    """Return what each sample gives to its ray: w_i = alpha_i times what is left of the light before it (Max, 1995)."""
    through_NS = density(signed_NS, beta) * delta_NS
    before_NS = torch.cumsum(through_NS, dim=1) - through_NS
    return -torch.expm1(-through_NS) * torch.exp(-before_NS)


def _deltas(t_NS: Tensor, end_N: Tensor, length_N: Tensor) -> Tensor:
    after_NS = torch.cat([t_NS[:, 1:], end_N[:, None]], dim=1)
    return (after_NS - t_NS).clamp(min=0) * length_N[:, None]


def _at(rays: Rays, t_NS: Tensor) -> Tensor:
    return rays.origin_N3[:, None] + t_NS[:, :, None] * rays.direction_N3[:, None]


def sampled(field: Field, encoded: Encoded, where: Spans, generator: torch.Generator | None) -> Tensor:
    """Return depths [N, 24] of each ray, most where its light comes from: proposals first, without a gradient.

    With no generator they are the middles of equal parts: the same picture each time.
    """
    with torch.no_grad():
        part_NS = _levels(where.start_N, generator)
        t_NS = where.start_N[:, None] + (where.end_N - where.start_N)[:, None] * part_NS
        pooled = field.pooled(_at(where.rays, t_NS).reshape(-1, 3), encoded)
        delta_NS = _deltas(t_NS, where.end_N, where.rays.direction_N3.norm(dim=1))
        weights_NS = weights_of(pooled.signed_N.reshape(t_NS.shape), delta_NS, field.beta) + 1e-6
        share_NS = (1 - _UNIFORM) * weights_NS / weights_NS.sum(1, keepdim=True) + _UNIFORM / _SAMPLES
        edges = torch.cat([where.start_N[:, None], (t_NS[:, 1:] + t_NS[:, :-1]) / 2, where.end_N[:, None]], dim=1)
        return _drawn(edges, share_NS, _levels(where.start_N, generator))


def _levels(like_N: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return a number [N, S] in each of S equal parts of 0 to 1, for as many rays."""
    shape = len(like_N), _SAMPLES
    jitter_NS = torch.full(shape, 0.5) if generator is None else torch.rand(shape, generator=generator)
    return ((torch.arange(_SAMPLES) + jitter_NS) / _SAMPLES).to(like_N.device)


def _drawn(edges_NE: Tensor, share_NS: Tensor, level_NS: Tensor) -> Tensor:
    """Return the places [N, S] below which lie given shares of a distribution that is even between edges."""
    below_NE = torch.cat([torch.zeros_like(share_NS[:, :1]), share_NS.cumsum(1)], dim=1)
    at_NS = (torch.searchsorted(below_NE, level_NS, right=True) - 1).clamp(0, share_NS.shape[1] - 1)
    rest_NS = (level_NS - below_NE.gather(1, at_NS)) / share_NS.gather(1, at_NS)
    low_NS, high_NS = edges_NE.gather(1, at_NS), edges_NE.gather(1, at_NS + 1)
    return low_NS + rest_NS.clamp(0, 1) * (high_NS - low_NS)


def rendered(field: Field, encoded: Encoded, where: Spans, t_NS: Tensor) -> Rendered:
    """Return what comes back along rays that are sampled at some depths."""
    points_NS3 = _at(where.rays, t_NS)
    points, towards = points_NS3.reshape(-1, 3), where.rays.direction_N3[:, None].expand_as(points_NS3).reshape(-1, 3)
    pooled = field.pooled(points, encoded)
    signed_NS = pooled.signed_N.reshape(t_NS.shape)
    delta_NS, hull_NS = (
        _deltas(t_NS, where.end_N, where.rays.direction_N3.norm(dim=1)),
        pooled.hull_N.reshape(t_NS.shape),
    )
    weights_NS = weights_of(signed_NS, delta_NS, field.beta)
    colour_NS3 = field.colour(pooled, points, towards, encoded).reshape(*t_NS.shape, 3)
    return Rendered(
        colour_N3=(weights_NS[:, :, None] * colour_NS3).sum(1),
        alpha_N=weights_NS.sum(1),
        hull_alpha_N=weights_of(hull_NS, delta_NS, field.beta).detach().sum(1),
        depth_N=(weights_NS * t_NS).sum(1),
        signed_NS=signed_NS,
        hull_NS=hull_NS,
        weights_NS=weights_NS,
        points_NS3=points_NS3,
    )
