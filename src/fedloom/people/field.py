"""The field: from a few photographs and a point of space to signed distance and colour, by 48,275 numbers.

In the spirit of USR (arXiv 2302.10518); its parts are those of methods that USR points to: pooled features of several
views as in pixelNeRF and IBRNet, colour as a blend of source pixels as in IBRNet, density as in VolSDF. Nothing is
allocated by person, view or resolution, so that any rule of federated training applies to its parameters.

Deviations: which density, losses and widths USR has is not known here; all formulas are ours.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedloom.people.scene import HIGH, LOW, Scene, outlines

__all__ = ["BETA_CAP_M", "REACH_M", "Encoded", "Field", "Pooled", "density"]

Told = TypeVar("Told")
REACH_M = 0.05
"""How far the surface may lie from the hull's."""
_BETA_START_M, BETA_CAP_M = 0.006, 0.008
"""Of the density: limbs are a few centimetres thick."""
_SLACK_M, _SLACK_WIDTH_M = 0.05, 0.012
_INSIDE_M, _INSIDE_WIDTH_M = 0.012, 0.003
_CHANNELS, _LATENT = 16, 16


class _Block(nn.Sequential):
    """A convolution of 3 x 3, a norm over four groups, ELU."""

    def __init__(self, taken: int, given: int, stride: int = 1) -> None:
        convolution = nn.Conv2d(taken, given, 3, stride, padding=1)
        super().__init__(convolution, nn.GroupNorm(4, given), nn.ELU())


class _Encoder(nn.Module):
    """Pictures with masks [V, 4, H, W] to features [V, 16, H / 2, W / 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = _Block(4, 16, 2), _Block(16, 24, 2), _Block(24, 32, 2)
        self.bottom = _Block(32, 32)
        self.up_quarter, self.up_half = _Block(56, 24), _Block(40, 16)
        self.last = nn.Conv2d(16, _CHANNELS, 1)

    def forward(self, pictures_V4HW: Tensor) -> Tensor:
        half = self.first(pictures_V4HW)
        quarter = self.second(half)
        bottom = self.bottom(self.third(quarter))
        up = self.up_quarter(torch.cat([_enlarged(bottom, quarter), quarter], dim=1))
        return self.last(self.up_half(torch.cat([_enlarged(up, half), half], dim=1)))


def _enlarged(small: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(small, like.shape[2:], mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Encoded:
    """A scene with the features of those of its photographs whose colours may be used."""

    scene: Scene
    sources: tuple[int, ...]
    features_V: Tensor
    """[V, 16, H / 2, W / 2] of the sources."""
    colours_V: Tensor
    """[V, 3, H, W] of the sources, as one camera would have taken them."""


@dataclass(frozen=True)
class Pooled:
    """What the field tells of points."""

    hull_N: Tensor
    signed_N: Tensor
    """Signed distance, metres, positive outside."""
    latent_NL: Tensor
    features_VN16: Tensor
    colours_VN3: Tensor
    distance_VN: Tensor
    seen_VN: Tensor
    """Soft visibility of each source, 0 to 1."""


class Field(nn.Module):
    """The shared network; `forward` hands itself on, so that parameters of a client can be put in its place."""

    def __init__(self, n_cameras: int = 0) -> None:
        super().__init__()
        self.encoder = _Encoder()
        self.surface = nn.Sequential(
            *(nn.Linear(2 * (_CHANNELS + 4) + 5, 64), nn.Softplus(100)),
            *(nn.Linear(64, 64), nn.Softplus(100)),
            nn.Linear(64, 1 + _LATENT),
        )
        self.blend = nn.Sequential(nn.Linear(_CHANNELS + 3 + 4 + _LATENT + 1, 32), nn.ELU(), nn.Linear(32, 1))
        self.log_beta = nn.Parameter(torch.tensor(math.log(_BETA_START_M)))
        self.n_cameras = n_cameras
        if n_cameras:
            self.cameras = nn.Parameter(torch.eye(3, 4).repeat(n_cameras, 1, 1))

    def start_at_hull(self) -> None:
        """Make the surface that of the visual hull, but for a little: where training begins."""
        last = self.surface.get_submodule("4")
        with torch.no_grad():
            last.get_parameter("weight")[0] *= 1e-2
            last.get_parameter("bias")[0] = 0.0

    def forward(self, asked: Callable[["Field"], Told]) -> Told:
        """Return what is asked of the field."""
        return asked(self)

    @property
    def beta(self) -> Tensor:
        """Width of the density, metres."""
        return self.log_beta.exp().clamp(max=BETA_CAP_M)

    def encoded(self, scene: Scene, sources: Sequence[int]) -> Encoded:
        """Return a scene with the features of its sources."""
        at = list(sources)
        masks = scene.mask_VHW[at][:, None]
        colours = self._corrected(scene.rgb_V3HW[at], at)
        return Encoded(scene, tuple(at), self.encoder(torch.cat([colours, masks], dim=1)), colours)

    def _corrected(self, colours_V3HW: Tensor, at: Sequence[int]) -> Tensor:
        if not self.n_cameras:
            return colours_V3HW
        own = self.cameras[[place % self.n_cameras for place in at]]
        return torch.einsum("vij,vjhw->vihw", own[:, :, :3], colours_V3HW) + own[:, :, 3, None, None]

    def as_taken(self, colours_N3: Tensor, camera: int) -> Tensor:
        """Return colours as a camera takes them: the inverse of how its pictures are corrected."""
        if not self.n_cameras:
            return colours_N3
        own = self.cameras[camera % self.n_cameras]
        return torch.linalg.solve(own[:, :3], (colours_N3 - own[:, 3]).T).T

    def pooled(self, points_N3: Tensor, encoded: Encoded) -> Pooled:
        """Return what the field tells of points: pooled over the sources by how they see each."""
        scene, at = encoded.scene, list(encoded.sources)
        distance_AN, grid_AN12, depth_AN = outlines(points_N3, scene)
        hull_N, own = distance_AN.amax(0), grid_AN12[at]
        features, colours = _sampled(encoded.features_V, own), _sampled(encoded.colours_V, own)
        first_VN = _sampled(scene.hull_depth_VHW[at][:, None], own)[:, :, 0]
        distance_VN = distance_AN[at]
        seen_VN = torch.sigmoid((_SLACK_M - (depth_AN[at] - first_VN)) / _SLACK_WIDTH_M) * torch.sigmoid(
            (_INSIDE_M - distance_VN) / _INSIDE_WIDTH_M
        )
        mixed = torch.cat([features, colours, 5 * distance_VN.clamp(-0.2, 0.2)[:, :, None]], dim=2)
        told = self.surface(_moments(mixed, seen_VN, hull_N, points_N3))
        signed_N = hull_N + REACH_M * torch.tanh(told[:, 0])
        return Pooled(hull_N, signed_N, told[:, 1:], features, colours, distance_VN, seen_VN)

    def colour(self, pooled: Pooled, points_N3: Tensor, towards_N3: Tensor, encoded: Encoded) -> Tensor:
        """Return the colour [N, 3] of points seen along directions: source pixels blended by how they fit."""
        centre_V3 = encoded.scene.centre_V3[list(encoded.sources)]
        from_VN3 = functional.normalize(points_N3 - centre_V3[:, None], dim=2)
        along_N3 = functional.normalize(towards_N3, dim=1)
        dot_VN1 = (from_VN3 * along_N3).sum(2, keepdim=True)
        latent = pooled.latent_NL.expand(len(centre_V3), -1, -1)
        parts = (pooled.features_VN16, pooled.colours_VN3, from_VN3 - along_N3, dot_VN1, latent)
        score_VN = self.blend(torch.cat([*parts, 5 * pooled.distance_VN[:, :, None]], dim=2))[:, :, 0]
        share_VN = torch.softmax(score_VN + pooled.seen_VN.clamp(min=1e-6).log(), dim=0)
        return (share_VN[:, :, None] * pooled.colours_VN3).sum(0)


def _sampled(pictures_VCHW: Tensor, grid_VN12: Tensor) -> Tensor:
    """Return what pictures have at places, [V, N, C]; beyond an edge what lies on it."""
    found = functional.grid_sample(pictures_VCHW, grid_VN12, padding_mode="border", align_corners=False)
    return found[:, :, :, 0].transpose(1, 2)


def _moments(values_VNC: Tensor, seen_VN: Tensor, hull_N: Tensor, points_N3: Tensor) -> Tensor:
    """Return mean and variance over the views that see a point, how many do, the hull and the place: [N, 45]."""
    total_N1 = seen_VN.sum(0)[:, None]
    share_VN1 = seen_VN[:, :, None] / (total_N1 + 1e-4)
    mean_NC = (share_VN1 * values_VNC).sum(0)
    variance_NC = (share_VN1 * (values_VNC - mean_NC) ** 2).sum(0)
    low, high = points_N3.new_tensor(LOW), points_N3.new_tensor(HIGH)
    place_N3 = 2 * (points_N3 - low) / (high - low) - 1
    return torch.cat([mean_NC, variance_NC, total_N1, 5 * hull_N.clamp(-0.2, 0.2)[:, None], place_N3], dim=1)


def density(signed_N: Tensor, beta: Tensor) -> Tensor:
    """Return VolSDF's density of distances (its equations 2, 3): 1 / beta times the Laplace distribution of -s."""
    return (0.5 + 0.5 * signed_N.sign() * torch.expm1(-signed_N.abs() / beta)) / beta
