"""What an interval is, and the formulas of those that are not drawn: Student's and Wilson's, and of a difference."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from fedloom.base.files import plain

__all__ = [
    "LEVEL",
    "Estimate",
    "Interval",
    "Verdict",
    "bounded_difference",
    "bounded_share",
    "satterthwaite",
    "student_quantile",
    "verdict",
]

LEVEL = 0.95
"""How often an interval holds the value, where nothing else is said."""

Verdict = Literal["better", "worse", "undecided"]
"""What is said of the first of two."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval, of 95 % where nothing else is said, and the number of questions or seeds behind it."""

    value: float
    low: float
    high: float
    n: int
    standard_error: float = math.nan
    effective_n: float = math.nan
    """Independent questions that would tell as much; below n where several are about one thing, or one client's."""

    def __format__(self, spec: str) -> str:
        """Format as `value [low, high]`, each by `spec`."""
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def record(self, *names: str) -> dict[str, Any]:
        """Return the fields of these names as JSON values, null where there is no number."""
        fields = plain(self)
        return {name: fields[name] for name in names}


@dataclass(frozen=True)
class Estimate:
    """A score, or a difference of scores, with its interval and what it is about."""

    labels: Mapping[str, str]
    interval: Interval
    n_questions: int = 0

    def __getitem__(self, label: str) -> str:
        return self.labels[label]

    def record(self, name: str) -> dict[str, Any]:
        """Return it as JSON values, the interval under its name."""
        told = {**self.labels, name: plain(self.interval)}
        return told | ({"n_questions": self.n_questions} if self.n_questions else {})


def verdict(difference: Interval, sign: int = 1) -> Verdict:
    """Return whether the first of two is better: undecided unless the interval of their difference leaves out 0.

    `sign` is -1 where less of the score is better, 0 where neither is.
    """
    side = sign * ((difference.low > 0) - (difference.high < 0))
    return "better" if side > 0 else "worse" if side < 0 else "undecided"


@cache
def student_quantile(level: float, freedom: int) -> float:
    """Return t such that a Student variable of that many degrees of freedom lies in [-t, t] with probability `level`.

    By bisection of the probability, which is a finite sum (Abramowitz & Stegun, 1964, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, 1.0
    while _student_inside(high, freedom) < level:
        high *= 2
    for _ in range(42):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_inside(middle, freedom) < level else (low, middle)
    return high


def _student_inside(t: float, freedom: int) -> float:
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def satterthwaite(parts: Sequence[tuple[float, int]]) -> int:
    """Return the degrees of freedom, rounded down, of a sum of variances with theirs (Satterthwaite, 1946)."""
    total, squares = sum(v for v, _ in parts), sum(v * v / freedom for v, freedom in parts)
    return max(1, int(total * total / squares + 1e-9)) if squares > 0 else max(1, *(freedom for _, freedom in parts), 1)


def bounded_share(value: float, variance: float, n_units: int, t: float) -> tuple[float, float]:
    """Return the ends of a share's interval (Wilson, 1927), which has a width where all answers are right, too.

    Its n is the number of independent answers that would have this variance (Korn & Graubard, 1998), and that of the
    units where there is none. `t` is the quantile of Student's distribution.
    """
    n = value * (1 - value) / variance if variance > 0 else float(n_units)
    middle = (value + t * t / (2 * n)) / (1 + t * t / n)
    half = t * math.sqrt(max(value * (1 - value), 0.0) / n + (t / (2 * n)) ** 2) / (1 + t * t / n)
    return max(0.0, min(middle - half, value)), min(1.0, max(middle + half, value))  # rounding leads out of them


def bounded_difference(
    values: Sequence[float], ends: Sequence[tuple[float, float]], correlation: float
) -> tuple[float, float]:
    """Return the ends of the difference of two correlated values from theirs (Zou & Donner, 2008).

    Source: doi:10.1002/sim.3095.
    """
    (one, other), ((low, high), (other_low, other_high)) = values, ends

    def half(first: float, second: float) -> float:
        return math.sqrt(max(first * first + second * second - 2 * correlation * first * second, 0.0))

    difference = one - other
    return difference - half(one - low, other_high - other), difference + half(high - one, other - other_low)
