"""A Gaussian for each class in the space of principal components, fitted on public examples alone.

With W the first D principal directions of the public examples and z = W (x - mean), a sample of class c is

    z = mu_c + sqrt(1 - s) (z_guide - mu_c) + sqrt(s) t e,    e ~ N(0, Sigma_c),

with Sigma_c the covariance of the class's public examples: the words alone are s = 1, and a private guide stands where
s is below. It stands in for a large generator where none is at hand, so that it may be made worse: `gap` moves what it
makes away from the data, pictures by a five-point blur and less contrast, rows by less spread and an offset.

Deviations: FedGC (arXiv 2312.05807) generates with a diffusion model; formula and gap are this package's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.base.errors import DataError
from fedloom.base.plugin import AtLeast, Fraction, NonNegative, plugin
from fedloom.contracts.generation import ORIGIN, Generated, Generator, Place, Request
from fedloom.contracts.labelled import Labelled, Picture, Row

__all__ = ["Gaussian"]

_Numbers = NDArray[np.float64]


@plugin("gaussian")
class Gaussian(Generator):
    """Class-conditional Gaussians, for pictures and rows of tables."""

    makes = (Picture, Row)
    data_guided = True

    dimensions: AtLeast = 16
    """Principal components."""
    temperature: NonNegative = 1.0
    """By what the deviation from the class's mean is multiplied: how diverse samples are."""
    gap: Fraction = 0.0
    """How far from the data samples lie."""

    def identity(self) -> str:
        """Return "": it is fitted on the public examples each time."""
        return ""

    def model_bytes(self, place: Place) -> int:
        """Return the size of what is fitted."""
        fitted = _fitted(place.public, self.dimensions)
        parts = (fitted.centre_N, fitted.axes_DN, *fitted.latent_by_label.values())
        return sum(part.nbytes for part in parts)

    def __call__(self, requests: Sequence[Request], place: Place) -> Generated:
        """Return the samples; refused without two public examples of a class, and for a guide of another shape."""
        if not requests:
            return Generated(())
        fitted = _fitted(place.public, self.dimensions)
        return Generated([fitted.example(request, self._numbers(request, fitted)) for request in requests])

    def _numbers(self, request: Request, fitted: "_Fitted") -> _Numbers:
        latent_ED = fitted.latents(request.label)
        mean_D, n = latent_ED.mean(0), len(latent_ED)
        drawn_E = rng.numpy_random("gaussian", request.seed).standard_normal(n)
        # A sum of the class's own deviations with normal weights has their covariance, of whatever rank that is.
        deviation_D = self.temperature * (drawn_E @ (latent_ED - mean_D)) / np.sqrt(n - 1)
        guided_D = fitted.latent(request.guide) - mean_D if request.guide is not None else 0.0
        s = request.strength if request.guide is not None else 1.0
        latent_D = mean_D + np.sqrt(1 - s) * guided_D + np.sqrt(s) * deviation_D
        return self._moved(fitted.centre_N + latent_D @ fitted.axes_DN, fitted)

    def _moved(self, numbers_N: _Numbers, fitted: "_Fitted") -> _Numbers:
        """Return a sample with the gap."""
        shape = fitted.first.inputs.shape
        if len(shape) == 1:
            near_N = fitted.centre_N + (numbers_N - fitted.centre_N) * (1 - 0.3 * self.gap)
            return near_N + 0.2 * self.gap * fitted.spread_N
        blurred = _blurred(numbers_N.reshape(shape)).reshape(-1)
        mixed_N = (1 - self.gap) * numbers_N + self.gap * blurred
        return mixed_N * (1 - 0.3 * self.gap) + 0.2 * self.gap


@dataclass(frozen=True)
class _Fitted:
    """Principal components of N numbers, and the public examples of each class in their D dimensions."""

    first: Labelled
    centre_N: _Numbers
    spread_N: _Numbers
    axes_DN: _Numbers
    latent_by_label: dict[str, _Numbers]

    def latents(self, label: str) -> _Numbers:
        """Return the class's public examples [E, D]."""
        found = self.latent_by_label.get(label)
        if found is None or len(found) < 2:
            n = 0 if found is None else len(found)
            raise DataError(
                f"generator 'gaussian': class '{label}' has {n} public examples, allowed are 2 and more; give it more, "
                "or leave the class out of prepare.labels."
            )
        return found

    def latent(self, guide: object) -> _Numbers:
        """Return where a private example lies."""
        shape = self.first.inputs.shape
        if not isinstance(guide, Picture | Row) or guide.inputs.shape != shape:
            raise DataError(
                f"generator 'gaussian': was fitted on examples of shape {list(shape)}, the client's have another; "
                "bring both to one size."
            )
        return self.axes_DN @ (guide.inputs.reshape(-1).astype(np.float64) - self.centre_N)

    def example(self, request: Request, numbers_N: _Numbers) -> Labelled:
        """Return numbers as an example of the kind that it was fitted on."""
        tags = {"label": request.label, ORIGIN: "generated"}
        if isinstance(self.first, Row):
            return Row(tuple(numbers_N.tolist()), request.label, tags)
        pixels = np.rint(np.clip(numbers_N, 0, 1) * 255).astype(np.uint8)
        return Picture(pixels.tobytes(), self.first.shape, request.label, tags)


def _fitted(public: Sequence[object], dimensions: int) -> _Fitted:
    known = [one for one in public if isinstance(one, Picture | Row)]
    if not known or len({one.inputs.shape for one in known}) > 1:
        raise DataError(
            f"generator 'gaussian': found {len(known)} public pictures or rows of one shape, allowed are 2 and more of "
            "each class; give the data a public split (data.public, data.public_path)."
        )
    inputs_EN = np.stack([one.inputs.reshape(-1) for one in known]).astype(np.float64)
    centre_N = inputs_EN.mean(0)
    # By torch, which keeps to the threads of the run.
    _, _, axes = torch.linalg.svd(torch.from_numpy(inputs_EN - centre_N), full_matrices=False)
    axes_DN = axes[:dimensions].numpy()
    latent_ED = (inputs_EN - centre_N) @ axes_DN.T
    labels = np.array([one.label for one in known])
    by_label = {str(label): latent_ED[labels == label] for label in sorted(set(labels.tolist()))}
    return _Fitted(known[0], centre_N, inputs_EN.std(0), axes_DN, by_label)


def _blurred(pixels_CHW: _Numbers) -> _Numbers:
    """Return each pixel's mean with its four neighbours, those beyond the border as the border itself."""
    padded = np.pad(pixels_CHW, ((0, 0), (1, 1), (1, 1)), mode="edge")
    up, down = padded[:, :-2, 1:-1], padded[:, 2:, 1:-1]
    left, right = padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]
    return (pixels_CHW + up + down + left + right) / 5
