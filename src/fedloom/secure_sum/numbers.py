"""Rows of floating-point numbers as whole numbers modulo 2^32, so that their sum is exact whoever sums them.

A number is clipped to [-c, c] and becomes the nearest multiple of the step c / 2^b. Of n clients no sum leaves 32 bits
where n 2^b <= 2^31; the highest multiple is 2^b - 1, as that of a signed number of b + 1 bits, so that n of them stay
below 2^31. Behind the P numbers of a row lie further ones, summed under the mask like all others: the row's weight, and
how many of its numbers were clipped.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.base.errors import ConfigError, DataError, TrainingError

__all__ = ["MOST_SATURATED", "Numbers", "Total", "row_bytes", "row_of"]

MOST_SATURATED = 1e-3
"""The share of clipped numbers above which a sum is told with a warning."""


def row_bytes(row_S: NDArray[np.uint32]) -> bytes:
    """Return whole numbers [S] as they travel: 4 S bytes, little-endian."""
    return row_S.astype("<u4", copy=False).tobytes()


def row_of(data: bytes | bytearray | NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the whole numbers [S] of 4 S bytes, over them where the machine allows it; DataError for other lengths."""
    if len(data) % 4:
        raise DataError(f"secure sum: found {len(data)} bytes, allowed are whole numbers of 4.")
    return np.frombuffer(data, dtype="<u4").astype(np.uint32, copy=False)


@dataclass(frozen=True, eq=False)
class Total:
    """What a sum came to."""

    sum_P: NDArray[np.float32]
    """Sum of the rows, each times its weight."""
    weight: float
    """Sum of the weights, as shares of the largest one; the number of rows where all count alike."""
    saturated: int
    """Numbers that were clipped, over all rows; 0 where they are not counted."""
    warning: str = ""
    """One line where too many were."""

    def mean_P(self) -> NDArray[np.float32]:
        """Return the weighted mean of the rows [P], float32."""
        return (self.sum_P / np.float32(self.weight)).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Numbers:
    """How the rows of at most `clients` clients become whole numbers."""

    clients: int
    bits: int
    """b: a number is one of 2^(b + 1) multiples of the step."""
    clip: float
    """c: largest magnitude of a number."""
    norm: float = math.inf
    """Largest Euclidean norm of a row: a longer one is scaled down to it."""
    weighted: bool = False
    """Whether rows are multiplied by weights, whose sum is told; else all count alike."""
    counted: bool = True
    """Whether clipped numbers are counted."""
    stochastic: bool = False
    """Whether numbers are rounded up or down at random, without bias, instead of to the nearest."""

    def __post_init__(self) -> None:
        if self.clients < 1 or not 1 <= self.bits <= 31 or self.clients << self.bits > 2**31:
            raise ConfigError(
                f"secure sum: found {self.clients} clients with {self.bits} bits, allowed are clients * 2^bits <= "
                f"2^31; take {max(31 - (max(self.clients, 1) - 1).bit_length(), 0)} bits."
            )
        if not 0 < self.clip < math.inf or not self.norm > 0:
            raise ConfigError(
                f"secure sum: found clip {self.clip:g} and norm {self.norm:g}, allowed are numbers > 0; set both."
            )

    @property
    def step(self) -> float:
        """What one unit stands for."""
        return self.clip / 2**self.bits

    def size(self, numbers: int) -> int:
        """Return the numbers of a masked row, S, of a row of P numbers."""
        return numbers + self.weighted + 2 * self.counted

    def told(self) -> str:
        """Return the settings as words, for the terms of a sum."""
        return repr(self)

    def encode(
        self, row_P: NDArray[np.float32], weight: float = 1.0, *, rounding: tuple[str | int, ...] = ()
    ) -> NDArray[np.uint32]:
        """Return the row [P] as numbers [S] modulo 2^32.

        `weight` is a share of the largest weight, in (0, 1]. `rounding` names the draws of stochastic rounding. Raises
        TrainingError for NaN and infinity, DataError for all else.
        """
        self._check(row_P, weight, rounding)
        unit_P = row_P.astype(np.float64)
        norm = math.sqrt(float(unit_P @ unit_P))
        if not math.isfinite(norm):
            raise TrainingError(
                "secure sum: found NaN or infinity in a row, allowed are finite numbers; lower local.lr."
            )
        unit_P *= min(1.0, self.norm / norm if norm > 0 else 1.0) / self.step
        highest = 2.0**self.bits
        saturated = int(np.count_nonzero(np.abs(unit_P) > highest)) if self.counted else 0
        np.clip(unit_P, -highest, highest, out=unit_P)
        whole_weight = min(max(round(weight * highest), 1), 2**self.bits - 1)
        if self.weighted:
            unit_P *= whole_weight / highest
        self._round(unit_P, rounding)
        row_S = np.empty(self.size(len(row_P)), dtype=np.uint32)
        row_S[: len(row_P)].view(np.int32)[:] = np.minimum(unit_P, highest - 1, out=unit_P)
        # The count in two digits, as a large row may have more numbers than 32 bits hold sums of.
        extra = [whole_weight] * self.weighted + [saturated % 2**self.bits, saturated >> self.bits] * self.counted
        row_S[len(row_P) :] = extra
        return row_S

    def _check(self, row_P: NDArray[np.float32], weight: float, rounding: tuple[str | int, ...]) -> None:
        if row_P.dtype != np.float32 or row_P.ndim != 1:
            raise DataError(f"secure sum: found a row {row_P.dtype} {row_P.shape}, allowed is float32 [P]; convert it.")
        if not 0 < weight <= 1 or (weight != 1 and not self.weighted):
            allowed = "a share in (0, 1]" if self.weighted else "1, as all count alike"
            raise DataError(f"secure sum: found weight {weight:g}, allowed is {allowed}; divide by the largest weight.")
        if self.counted and self.clients * (len(row_P) >> self.bits) >= 2**32:
            raise DataError(
                f"secure sum: found {len(row_P)} numbers at {self.bits} bits, allowed are fewer where clipped numbers "
                "are counted; raise the bits."
            )
        if bool(rounding) != self.stochastic:
            found = "a name" if rounding else "no name"
            raise DataError(f"secure sum: found {found} for the draws of rounding, allowed is one if it is stochastic.")

    def _round(self, unit_P: NDArray[np.float64], rounding: tuple[str | int, ...]) -> None:
        if rounding:
            unit_P += rng.numpy_random("secure sum rounding", *rounding).random(len(unit_P))
            np.floor(unit_P, out=unit_P)
        else:
            np.rint(unit_P, out=unit_P)

    def decode(self, sum_S: NDArray[np.uint32], rows: int) -> Total:
        """Return what the sum [S] of so many rows stands for; DataError for an impossible length or number of rows."""
        numbers = len(sum_S) - self.size(0)
        if sum_S.dtype != np.uint32 or sum_S.ndim != 1 or numbers < 0 or not 1 <= rows <= self.clients:
            raise DataError(
                f"secure sum: found a sum {sum_S.dtype} {sum_S.shape} of {rows} rows, allowed is uint32 [S] of 1 to "
                f"{self.clients}; give the sum as it came."
            )
        sum_P = (sum_S[:numbers].view(np.int32) * self.step).astype(np.float32)
        extra = sum_S[numbers:].tolist()
        weight = extra.pop(0) / 2**self.bits if self.weighted else float(rows)
        saturated = extra[0] + (extra[1] << self.bits) if self.counted else 0
        return Total(sum_P, weight, saturated, self._warning(saturated, rows * numbers))

    def _warning(self, saturated: int, numbers: int) -> str:
        if saturated <= MOST_SATURATED * numbers:
            return ""
        return (
            f"secure sum: found {saturated / numbers:.2%} of the numbers clipped at {self.clip:g}, allowed is up to "
            f"{MOST_SATURATED:.1%}; raise the clip."
        )

    def reach(self, numbers: int) -> float:
        """Return the largest norm, in units, of the whole numbers that stand for a row of P numbers.

        Rounding moves each by up to 1/2, or by less than 1 if stochastic. Floating point adds what a norm summed
        up in float64 may be off by.
        """
        longest = min(self.norm, self.clip * math.sqrt(numbers)) / self.step
        rounding = 1.0 if self.stochastic else 0.5
        return longest * (1 + (numbers + 8) * 2.0**-52) + math.sqrt(numbers) * rounding
