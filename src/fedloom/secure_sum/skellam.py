"""Whole-number noise that clients add each by itself: differences of two Poisson numbers, the Skellam distribution.

Agarwal, Kairouz & Liu 2021, The Skellam Mechanism for Differentially Private Federated Learning,
https://arxiv.org/abs/2110.04995: Skellam numbers add up to a Skellam number whose variance is the sum of theirs, so
that the noise of whoever survives is noise of a known law. What it costs is counted in `accountant`.

P[X = k] = e^-v I_k(v) for variance v, with I the modified Bessel function, whose ratios come from the recurrence
I_(k-1) = I_(k+1) + (2 k / v) I_k downwards from an index beyond all that counts (Miller's algorithm; NIST Digital
Library of Mathematical Functions, 10.74(iv)), in decimal numbers of 60 digits. A number is drawn by inverting the
distribution function: 64 random bits choose the cell of a table, and on the edge of two cells another 64 bits decide.

Deviations: the tail beyond 2^-130 is left out and probabilities are rounded to 2^-128; `distance` bounds both, and the
accountant adds them to delta. Nothing hides how long a draw takes.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.base.errors import ConfigError

__all__ = ["LARGEST_VARIANCE", "Noise", "add_noise", "distance", "named_bits", "probabilities", "skellam"]

LARGEST_VARIANCE = 2.0**30
"""Of one client's noise: its table has 880,000 cells and takes seconds to make."""

_TAIL_BITS = 130
_CHUNK = 2**16
_CONTEXT = Context(prec=60)

Bits = Callable[[int], bytes]
"""Gives that many random bytes."""


@dataclass(frozen=True)
class Noise:
    """Noise whose variance on the sum is at least `variance`, in units squared, if `least` honest clients add theirs.

    `least` is the `min_clients` of the terms less those that may collude: a colluding client knows its own noise, and
    one that is lost adds none. With fewer than `min_clients` no party opens anything: no sum has too little noise.
    """

    variance: float
    least: int

    def __post_init__(self) -> None:
        if not 0 < self.variance < math.inf or self.least < 1 or self.each > LARGEST_VARIANCE:
            raise ConfigError(
                f"secure sum: found noise of variance {self.variance:g} by {self.least} clients, allowed is a variance "
                f"> 0 and <= {LARGEST_VARIANCE:g} of each; lower the bits of a number."
            )

    @property
    def each(self) -> float:
        """Variance that one client adds."""
        return self.variance / self.least

    def excess(self, survivors: int) -> float:
        """Return the variance on a sum over so many rows, as a multiple of the one that was asked for."""
        return survivors / self.least


def _reach(variance: float, bits: int) -> int:
    """Return a k with P[X >= k] <= 2^-bits, by Chernoff's bound exp(sqrt(k^2 + v^2) - v - k asinh(k / v))."""
    low, high = 0, 1
    while _log_tail(high, variance) > -bits * math.log(2):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _log_tail(middle, variance) <= -bits * math.log(2) else (middle, high)
    return high


def _log_tail(k: int, variance: float) -> float:
    # sqrt(k^2 + v^2) - v, written so that it keeps its digits where v is much larger than k
    return k * k / (math.hypot(k, variance) + variance) - k * math.asinh(k / variance)


def probabilities(variance: float) -> list[Decimal]:
    """Return P[X = 0], P[X = 1], ... of the Skellam distribution up to where less than 2^-130 is left."""
    last = _reach(variance, _TAIL_BITS)
    times, zero = _CONTEXT.divide(Decimal(2), Decimal(variance)), Decimal(0)
    above, here, found = zero, Decimal(1), [Decimal(1)]
    # From twice as many bits further out, the start no longer shows in what is kept.
    for k in range(_reach(variance, 2 * _TAIL_BITS), 0, -1):
        above, here = here, _CONTEXT.fma(_CONTEXT.multiply(times, k), here, above)
        found.append(here)
    found = found[: -last - 2 : -1]
    whole = found[0]
    for one in found[1:]:
        whole = _CONTEXT.fma(2, one, whole)
    return [_CONTEXT.divide(one, whole) for one in found]


@lru_cache(4)
def _edges(variance: float) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the distribution function at -K ... K - 1 as whole multiples of 2^-128: their upper and lower 64 bits."""
    chances, scale = probabilities(variance), Decimal(2**128)
    below, high, low = Decimal(0), [], []
    for chance in (*chances[:0:-1], *chances[:-1]):
        below = _CONTEXT.add(below, chance)
        edge = min(int(_CONTEXT.multiply(below, scale)), 2**128 - 1)
        high.append(edge >> 64)
        low.append(edge & (2**64 - 1))
    return np.array(high, dtype=np.uint64), np.array(low, dtype=np.uint64)


def skellam(variance: float, count: int, bits: Bits = os.urandom) -> NDArray[np.int64]:
    """Return `count` Skellam numbers [count] of that variance, from the system's source if no other is given."""
    high, low = _edges(variance)
    drawn = np.empty(count, dtype=np.int64)
    for start in range(0, count, _CHUNK):
        part = drawn[start : start + _CHUNK]
        upper = np.frombuffer(bits(8 * len(part)), dtype="<u8")
        part[:] = np.searchsorted(high, upper, side="left")
        inside = np.minimum(part, len(high) - 1)
        for place in np.flatnonzero(high[inside] == upper).tolist():
            part[place] = _beyond_tie(int(part[place]), int(upper[place]), high, low, bits)
    return drawn - len(high) // 2


def _beyond_tie(cell: int, upper: int, high: NDArray[np.uint64], low: NDArray[np.uint64], bits: Bits) -> int:
    """Return the cell of a draw whose upper bits are those of its edge: the first whose edge is above all 128 bits."""
    lower = int.from_bytes(bits(8), "little")
    while cell < len(high) and int(high[cell]) == upper and int(low[cell]) <= lower:
        cell += 1
    return cell


def named_bits(*names: str | int) -> Bits:
    """Return random bytes told by names, for simulations and tests: whoever knows the names can take the noise off."""
    return rng.numpy_random("secure sum noise", *names).bytes


def add_noise(row_S: NDArray[np.uint32], noise: Noise, bits: Bits = os.urandom) -> None:
    """Add one client's noise to its row [S] in place, modulo 2^32."""
    row_S += skellam(noise.each, len(row_S), bits).astype(np.uint32)


def distance(variance: float) -> float:
    """Return a bound on the total variation distance between a number as drawn and a Skellam number.

    Each of the 2 K edges is off by at most 2^-128, and two tails of 2^-130 and their share of the start are missing.
    """
    return 2.0**-127 * _reach(variance, _TAIL_BITS) + 2.0**-128
