"""A parser that errs as parsers do: edges that jitter, wrong blobs, two classes taken for each other in a whole view.

How well its confidence tells where it is wrong is a setting, which no algorithm gets to see.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fedloom.base.extras import library
from fedloom.base.plugin import Fraction, NonNegative, Range, check_ranges
from fedloom.base.rng import numpy_random
from fedloom.people.captures import Parse
from fedloom.people.labels import BACKGROUND, LABELS
from fedloom.people.meshes import Floats, Ints
from fedloom.people.parses import parse_of_labels

__all__ = ["ParserNoise", "noisy_parses"]

_SMOOTH_PX, _SPECK_PX = 6.0, 4.0
_RADIUS = 0.02, 0.08
"""Of a blob, as a share of the picture's height."""
_CONFIDENCE, _LOSS = 0.82, 0.6
_LOWEST = 0.05
"""Of a confidence: at 0 a label would not be told at all."""


@dataclass(frozen=True, kw_only=True)
class ParserNoise:
    """How a parser errs."""

    jitter_px: NonNegative = 1.6
    """How far edges move on the mean, pixels."""
    rate: Annotated[float, Range(0, 0.9)] = 0.15
    """The share of the person's pixels that blobs of a wrong class cover."""
    p_fail: Fraction = 0.05
    """How likely two classes are taken for each other in a whole view."""
    calib: Fraction = 1.0
    """1 for a confidence that falls to 0.4 where the parser is wrong, 0.3 for one that tells nothing."""
    speckle: NonNegative = 0.12
    """The deviation of the smooth noise in a confidence."""

    def __post_init__(self) -> None:
        check_ranges(self)


def noisy_parses(labels_VHW: Ints, settings: ParserNoise, *names: str | int) -> tuple[Parse, ...]:
    """Return what a parser tells of each view whose true classes are given; the same for the same names."""
    return tuple(_told(labels_HW, settings, (*names, view)) for view, labels_HW in enumerate(labels_VHW))


def _told(right_HW: Ints, settings: ParserNoise, names: tuple[str | int, ...]) -> Parse:
    drawn = numpy_random("parser noise", *names)
    told_HW = _jittered(right_HW, settings.jitter_px, drawn)
    told_HW = _with_blobs(told_HW, settings.rate, drawn)
    told_HW = _confused(told_HW, settings.p_fail, drawn)
    speckle_HW = settings.speckle * _smooth(right_HW.shape, _SPECK_PX, drawn)
    mean_HW = np.where(told_HW == right_HW, _CONFIDENCE, 1 - _LOSS * settings.calib)
    return parse_of_labels(told_HW, np.clip(mean_HW + speckle_HW, _LOWEST, 1))


def _smooth(shape: tuple[int, ...], blur_px: float, drawn: np.random.Generator) -> Floats:
    """Return smooth noise [H, W] of mean 0 and deviation 1."""
    noise_HW = library("scipy.ndimage", "people").gaussian_filter(drawn.normal(size=shape), blur_px, mode="wrap")
    return (noise_HW - noise_HW.mean()) / noise_HW.std()


def _jittered(labels_HW: Ints, mean_px: float, drawn: np.random.Generator) -> Ints:
    """Return labels whose edges a smooth flow has moved, by `mean_px` on the mean."""
    flow_2HW = np.stack([_smooth(labels_HW.shape, _SMOOTH_PX, drawn) for _ in range(2)])
    flow_2HW *= mean_px / np.hypot(*flow_2HW).mean()
    rows, columns = np.rint(np.indices(labels_HW.shape) + flow_2HW).astype(int)
    height, width = labels_HW.shape
    return labels_HW[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]


def _with_blobs(labels_HW: Ints, rate: float, drawn: np.random.Generator) -> Ints:
    """Return labels with ellipses of wrong classes of the person, until they cover `rate` of its pixels.

    The last one is cut to what is missing, by its distance from the middle, so that the rate is met.
    """
    person_HW, told_HW = labels_HW != BACKGROUND, labels_HW.copy()
    row_N, column_N = np.nonzero(person_HW)
    wanted, wrong_HW = round(rate * len(row_N)), np.zeros(labels_HW.shape, bool)
    while (missing := wanted - int(wrong_HW.sum())) > 0:
        at = drawn.integers(len(row_N))
        tall, wide = labels_HW.shape[0] * drawn.uniform(*_RADIUS, 2)
        off_N = np.hypot((row_N - row_N[at]) / tall, (column_N - column_N[at]) / wide)
        label = drawn.integers(1, len(LABELS))
        open_N = np.flatnonzero((off_N < 1) & ~wrong_HW[row_N, column_N] & (labels_HW[row_N, column_N] != label))
        hit_N = open_N[np.argsort(off_N[open_N], kind="stable")[:missing]]
        told_HW[row_N[hit_N], column_N[hit_N]] = label
        wrong_HW[row_N[hit_N], column_N[hit_N]] = True
    return told_HW


def _confused(labels_HW: Ints, p_fail: float, drawn: np.random.Generator) -> Ints:
    """Return labels in which, as likely as `p_fail`, one class of the view is called another one."""
    present = np.setdiff1d(labels_HW, [BACKGROUND])
    if drawn.random() >= p_fail or not len(present):
        return labels_HW
    taken = drawn.choice(present)
    other = drawn.choice(np.setdiff1d(np.arange(1, len(LABELS)), [taken]))
    return np.where(labels_HW == taken, other, labels_HW)
