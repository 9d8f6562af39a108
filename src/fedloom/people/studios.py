"""Studios that photograph people each in their own way: the clients of a federation, as unlike each other as asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

import numpy as np

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import AtLeast, Range, check_ranges
from fedloom.base.rng import numpy_random
from fedloom.people.cameras import Camera, ring
from fedloom.people.dressed import N_TONES
from fedloom.people.garments import BOTTOMS, TOPS
from fedloom.people.noise import ParserNoise
from fedloom.people.photographs import Light
from fedloom.people.textures import KINDS

__all__ = ["Studio", "make_studios"]

_TOPS, _BOTTOMS, _TONES = TOPS[:2], BOTTOMS[:2], tuple(range(N_TONES))

Kind = TypeVar("Kind")


@dataclass(frozen=True, kw_only=True)
class Studio:
    """Whom a studio photographs and how."""

    name: str = "studio"
    tops: tuple[str, ...] = _TOPS
    bottoms: tuple[str, ...] = _BOTTOMS
    textures: tuple[str, ...] = KINDS
    tones: tuple[Annotated[int, Range(0, N_TONES - 1)], ...] = _TONES
    """Which tones of skin, from the lightest."""
    views: Annotated[int, Range(3, 64)] = 6
    height: AtLeast = 128
    """Rows of a picture."""
    width: AtLeast = 128
    start_deg: float = 0.0
    """Where the ring of cameras begins."""
    elevations_deg: tuple[Annotated[float, Range(-60, 75)], ...] = (0.0, 20.0)
    distance_m: Annotated[float, Range(1.5, 10)] = 3.0
    light: Light = field(default_factory=Light)
    noise: ParserNoise = field(default_factory=ParserNoise)

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in ("tops", "bottoms", "textures", "tones", "elevations_deg"):
            if not vars(self)[name]:
                raise ConfigError(f"{name}: found none, allowed is at least one.")

    def cameras(self) -> tuple[Camera, ...]:
        """Return the ring of cameras."""
        return ring(
            self.views,
            self.height,
            self.width,
            distance=self.distance_m,
            elevations=self.elevations_deg,
            start=self.start_deg,
        )


_SPREADS: Mapping[str, float] = {
    **{"start": 1.0, "low": 10.0, "high": 10.0, "distance": 0.4, "yaw": 150.0, "lamp": 25.0, "ambient": 0.25},
    **{"red": 0.2, "green": 0.1, "blue": 0.2, "wall_red": 0.18, "wall_green": 0.18, "wall_blue": 0.18},
    **{"jitter": 0.8, "rate": 0.12, "fail": 0.05, "calib": 0.35},
}
"""How far studios are apart at a skew of 1, both ways from the middle."""


def make_studios(count: int, seed: int, skew: float, *, size: int = 128, views: int = 6) -> tuple[Studio, ...]:
    """Return studios that differ by construction: at a skew of 0 they are alike, at 1 each has one kind of everything.

    Of each number (ring, lamp, colours, parser) the studios take places at even steps, in an order drawn by the seed;
    garments and textures are dealt out in turn. ConfigError for a count below 1 or a skew out of 0 to 1.
    """
    if count < 1 or not 0 <= skew <= 1:
        raise ConfigError(f"studios: found count {count} and skew {skew}, allowed are 1 or more and 0 to 1.")
    steps = skew * ((2 * np.arange(count) + 1) / count - 1)
    orders = {name: numpy_random("studios", seed, name).permutation(steps) for name in _SPREADS}
    firsts = {
        kind: numpy_random("studios", seed, kind).permutation(count) for kind in ("top", "bottom", "texture", "tone")
    }
    studios: list[Studio] = []
    for at in range(count):
        off = {name: float(spread * orders[name][at]) for name, spread in _SPREADS.items()}
        studios.append(
            Studio(
                name=f"studio{at}",
                tops=_dealt(_TOPS, int(firsts["top"][at]), skew),
                bottoms=_dealt(_BOTTOMS, int(firsts["bottom"][at]), skew),
                textures=_dealt(KINDS, int(firsts["texture"][at]), skew),
                tones=_dealt(_TONES, int(firsts["tone"][at]), skew),
                views=views,
                height=size,
                width=size,
                start_deg=off["start"] * 180 / views,  # half the way to the next camera: further on the ring repeats
                elevations_deg=(off["low"], 20 + off["high"]),
                distance_m=3 + off["distance"],
                light=_light(off),
                noise=_noise(off),
            )
        )
    return tuple(studios)


def _dealt(kinds: Sequence[Kind], first: int, skew: float) -> tuple[Kind, ...]:
    """Return all kinds at a skew of 0, one at 1, from the first on, in their order."""
    n_kinds = round(len(kinds) - skew * (len(kinds) - 1))
    dealt = {(first + one) % len(kinds) for one in range(n_kinds)}
    return tuple(kind for place, kind in enumerate(kinds) if place in dealt)


def _light(off: Mapping[str, float]) -> Light:
    return Light(
        yaw_deg=30 + off["yaw"],
        height_deg=45 + off["lamp"],
        ambient=0.55 + off["ambient"],
        cast=(1 + off["red"], 1 + off["green"], 1 + off["blue"]),
        background=(0.75 + off["wall_red"], 0.75 + off["wall_green"], 0.75 + off["wall_blue"]),
    )


def _noise(off: Mapping[str, float]) -> ParserNoise:
    return ParserNoise(
        jitter_px=1.6 + off["jitter"],
        rate=0.15 + off["rate"],
        p_fail=0.05 + off["fail"],
        calib=0.65 + off["calib"],
    )
