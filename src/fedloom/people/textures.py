"""Colours of cloth and skin as functions of where a point lies in the rest pose: they travel with what wears them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedloom.base.errors import ConfigError
from fedloom.people.meshes import Floats

__all__ = ["KINDS", "Texture", "drawn_texture"]

Kind = Literal["plain", "stripes", "checks"]
KINDS: tuple[Kind, ...] = ("plain", "stripes", "checks")


@dataclass(frozen=True, eq=False)
class Texture:
    """One or two colours."""

    kind: Kind
    first_3: Floats
    second_3: Floats
    period_m: float = 0.08

    def __call__(self, rest_N3: Floats) -> Floats:
        """Return the colours [N, 3] of points of the rest pose, 0 to 1."""
        if self.kind == "plain":
            return np.broadcast_to(self.first_3, rest_N3.shape).copy()
        axes = rest_N3[:, 1:2] if self.kind == "stripes" else rest_N3
        odd_N1 = np.floor(axes / (self.period_m / 2)).sum(1, keepdims=True) % 2
        return self.first_3 * (1 - odd_N1) + self.second_3 * odd_N1


def drawn_texture(rng: np.random.Generator, kinds: tuple[str, ...]) -> Texture:
    """Return a texture of one of the kinds, its colours apart from one another."""
    known: dict[str, Kind] = {kind: kind for kind in KINDS}
    odd = [kind for kind in kinds if kind not in known]
    if odd or not kinds:
        raise ConfigError(f"textures: found {list(kinds)}, allowed are some of {', '.join(KINDS)}.")
    kind = known[kinds[int(rng.integers(len(kinds)))]]
    first_3 = rng.uniform(0.08, 0.92, 3)
    away_3 = rng.uniform(0.25, 0.5, 3) * np.where(first_3 > 0.5, -1, 1)
    return Texture(kind, first_3, first_3 + away_3, float(rng.uniform(0.06, 0.14)))
