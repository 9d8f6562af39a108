"""What the field learns from: how a photograph differs from what the others and the field say of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedloom.base import rng
from fedloom.base.plugin import NonNegative, check_ranges
from fedloom.people.field import Encoded, Field
from fedloom.people.rendering import rays_of, rendered, sampled, spans
from fedloom.people.scene import Scene

__all__ = ["Bundle", "Losses", "Weights", "bundle_of", "gradient_norms", "losses"]

_EPSILON_M = 0.006
_BEYOND_M, _EDGE_M = 0.05, 0.012
"""Pixels are drawn to 5 cm beyond the silhouette; colours are compared from 12 mm within it."""
_STEEP_POINTS = 192
_LEAST_SOURCES, _MOST_SOURCES = 4, 6


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What the terms of the loss count."""

    mask: NonNegative = 0.2
    """The silhouette, by absolute difference: a cross-entropy rewarded a surface that shrinks everywhere."""
    eikonal: NonNegative = 0.1
    """That the distance grows by a metre a metre."""
    residual: NonNegative = 0.2
    """Each metre between the surface's distance and the hull's: pictures must pay for carving."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, eq=False)
class Bundle:
    """Some pixels of one photograph, and the photographs that they are told from."""

    scene: Scene
    target: int
    sources: tuple[int, ...]
    pixels_N2: Tensor
    """Row and column of each, int64."""
    off_N: Tensor
    """How far each lies from the silhouette, metres, negative inside."""
    names: tuple[str | int, ...]
    """By what the places on its rays are drawn."""


@dataclass(frozen=True)
class Losses:
    """The loss and its parts, each a mean over rays or points."""

    total: Tensor
    colour: Tensor
    mask: Tensor
    eikonal: Tensor
    residual: Tensor


def bundle_of(scene: Scene, target: int, place: int, n_rays: int) -> Bundle:
    """Return the bundle of that place of a photograph: what is drawn follows from the scene's name and the place.

    All masks make the hull; only the target's colours are kept back. Four to six others are the sources.
    """
    names = ("bundle", scene.name, target, place)
    drawn = rng.python_random(*names)
    others = [view for view in range(scene.n_views) if view != target]
    count = drawn.randint(min(_LEAST_SOURCES, len(others)), min(_MOST_SOURCES, len(others)))
    off_HW = _metres(scene, target)
    near_X2 = (off_HW < _BEYOND_M).nonzero()
    pixels_N2 = near_X2[torch.tensor([drawn.randrange(len(near_X2)) for _ in range(n_rays)])]
    sources = tuple(sorted(drawn.sample(others, count)))
    return Bundle(scene, target, sources, pixels_N2, off_HW[tuple(pixels_N2.T)], names)


def _metres(scene: Scene, target: int) -> Tensor:
    """Return how far pixels [H, W] lie from the silhouette where the person stands, metres, negative inside."""
    depth = scene.hull_depth_VHW[target]
    return scene.distance_VHW[target] * (depth[depth < depth.max()].median() / scene.focal_V[target])


def losses(field: Field, bundle: Bundle, weights: Weights) -> Losses:
    """Return the loss of a bundle: |C' - C| + mask [A_h - A']+ + eikonal (|grad s| - 1)^2 + residual |s - h|.

    A ray that grazes a surface passes through the thin mist before it for centimetres, and so a silhouette is shown
    wider than it is by one to two of the density's widths: held against the mask, edges would wear the surface down
    by a centimetre. So the mask is taken as this renderer shows it, A_h of the visual hull, which agrees with all
    masks: within a silhouette less than that counts, without it more. Colours are compared off the edges.
    """
    scene = bundle.scene.on(field.log_beta.device)
    encoded, pixels_N2 = field.encoded(scene, bundle.sources), bundle.pixels_N2.to(scene.mask_VHW.device)
    where = spans(scene, rays_of(scene, bundle.target, pixels_N2.flip(1) + 0.5))
    if not len(where.hits_R):
        nothing = field.log_beta * 0.0
        return Losses(nothing, nothing, nothing, nothing, nothing)
    row_N, column_N = pixels_N2[where.hits_R].T
    t_NS = sampled(field, encoded, where, rng.generator(*bundle.names))
    seen = rendered(field, encoded, where, t_NS)
    off_N = bundle.off_N.to(row_N.device)[where.hits_R]
    inner_N = (off_N < -_EDGE_M) & (scene.mask_VHW[bundle.target, row_N, column_N] > 0.99)
    shown_N3 = field.as_taken(seen.colour_N3 / seen.alpha_N[:, None].clamp(min=1e-3), bundle.target)
    mixed_N3 = shown_N3 * seen.alpha_N[:, None] + (1 - seen.alpha_N[:, None])
    wrong_N = (mixed_N3 - scene.rgb_V3HW[bundle.target, :, row_N, column_N].T).abs().mean(1)
    lacking_N = (seen.hull_alpha_N - seen.alpha_N) * torch.where(off_N < 0, 1.0, -1.0)
    norms_N = gradient_norms(field, encoded, _surface_points(seen.points_NS3, seen.weights_NS))
    colour = (wrong_N * inner_N).sum() / inner_N.sum().clamp(min=1)
    mask, steep = lacking_N.clamp(min=0).mean(), ((norms_N - 1) ** 2).mean()
    carved = (seen.signed_NS - seen.hull_NS).abs().mean()
    total = colour + weights.mask * mask + weights.eikonal * steep + weights.residual * carved
    return Losses(total, colour, mask, steep, carved)


def _surface_points(points_NS3: Tensor, weights_NS: Tensor) -> Tensor:
    """Return the points [N, 3] of most light of evenly chosen rays."""
    count = min(_STEEP_POINTS, len(points_NS3))
    rays = torch.linspace(0, len(points_NS3) - 1, count, device=points_NS3.device).long()
    return points_NS3[rays, weights_NS[rays].argmax(1)].detach()


def gradient_norms(field: Field, encoded: Encoded, points_N3: Tensor, epsilon_m: float = _EPSILON_M) -> Tensor:
    """Return the length [N] of the signed distance's gradient, by central differences."""
    ways_33 = torch.eye(3, device=points_N3.device)
    step_63 = epsilon_m * torch.cat([ways_33, -ways_33])
    signed = field.pooled((points_N3[None] + step_63[:, None]).reshape(-1, 3), encoded).signed_N
    plus, minus = signed.reshape(2, 3, -1)
    return ((plus - minus) / (2 * epsilon_m)).norm(dim=0)
