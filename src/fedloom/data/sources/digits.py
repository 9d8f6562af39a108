"""Handwritten digits of 8 x 8 pixels that scikit-learn ships (Alpaydin and Kaynak, 1998, UCI, CC BY 4.0): 1,797."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedloom.base import rng
from fedloom.base.errors import ConfigError
from fedloom.base.extras import library
from fedloom.base.plugin import Count, plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Source
from fedloom.contracts.labelled import Picture

__all__ = ["Digits"]

_DARKEST = 16


@plugin("digits")
class Digits(Source):
    """Digits in an order drawn by the seed: first the public ones, then the test, then what clients own."""

    needs = ("sklearn",)

    seed: Count = 0
    """Of the order."""
    public: Count = 200
    """Digits that nobody owns, for generators."""
    test: Count = 500
    """Digits of the common test."""
    private: Count = 500
    """Digits that are dealt to clients; 0 takes all that are left."""

    def brings_in(self) -> str:
        """Return "": which digits are taken depends on the seed alone."""
        return ""

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the clients' digits, the test and the public ones; refused where there are not so many."""
        parts = self.parts()
        return {"train": parts.private, "test": parts.test, "public": parts.public}

    def parts(self) -> "Parts":
        """Return all digits by what they are for."""
        found = library("sklearn.datasets", "source 'digits'").load_digits()
        pixels_NHW = np.rint(found.images * (255 / _DARKEST)).astype(np.uint8)
        n, wanted = len(pixels_NHW), self.public + self.test + self.private
        if wanted > n or (not self.private and wanted == n):
            raise ConfigError(f"data: found public + test + private = {wanted}, there are {n} digits.")
        order = rng.numpy_random("digits", self.seed).permutation(n)
        digits = [_digit(pixels_NHW[at], int(found.target[at])) for at in order]
        first, second = self.public, self.public + self.test
        third = second + self.private if self.private else n
        return Parts(digits[:first], digits[first:second], digits[second:third], digits[third:])


@dataclass(frozen=True)
class Parts:
    """Digits by what they are for."""

    public: Sequence[Picture]
    test: Sequence[Picture]
    private: Sequence[Picture]
    unseen: Sequence[Picture]
    """Those that nothing is done with."""


def _digit(pixels_HW: np.ndarray, label: int) -> Picture:
    return Picture(pixels_HW.tobytes(), (1, *pixels_HW.shape), str(label), {"label": str(label)})
