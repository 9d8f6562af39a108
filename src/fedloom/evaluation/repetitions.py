"""Intervals over repetitions of a whole run, seed by seed: what another seed and other questions would give.

One seed has a bootstrap interval over its questions and clients, which knows nothing of another training. Seeds that
ask questions of their own differ by them, and Student's interval over the seeds covers both. Where seeds ask the same
questions, or have clients with the same data, their means are alike in what these happen to be: the variance of the
mean over S seeds is var(seeds) / S plus the covariance of two seeds, which is estimated from the questions and clients
that they share (two-way random effects; Cameron, Gelbach & Miller, 2011, doi:10.1198/jbes.2010.07136). Each of the two
has its own quantile, and half-widths add up in squares: with degrees of freedom put together (Satterthwaite), three
seeds looked at in many places would err more often than they say.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError
from fedloom.evaluation.intervals import (
    LEVEL,
    Interval,
    bounded_difference,
    bounded_share,
    satterthwaite,
    student_quantile,
)
from fedloom.evaluation.statistics import Array, ScoreTable, bootstrap, unit_numbers

__all__ = ["Repetition", "joined", "mean_interval", "over_seeds", "repeated_p", "student_interval"]

Part = tuple[float, int]
"""A variance and its degrees of freedom."""


@dataclass(frozen=True)
class Repetition:
    """The score of a seed, or what it is more than another on the same questions."""

    one: ScoreTable
    other: ScoreTable | None = None
    questions: Hashable = None
    """Equal where two seeds asked the same questions."""
    data: Hashable = None
    """Equal where the clients of two seeds have the same data."""

    @property
    def value(self) -> float:
        """The score, or the difference."""
        return self.one.value - (self.other.value if self.other else 0.0)

    @property
    def tables(self) -> list[ScoreTable]:
        """The scores, rows that share no question as one."""
        return [table.merged() for table in (self.one, self.other) if table]


def joined(intervals: Sequence[Interval]) -> Interval:
    """Return the mean of independent values: half-widths add up in squares (Zou & Donner, 2008, doi:10.1002/sim.3095).

    Used over data sets, whose questions and clients are others.
    """
    if len(intervals) == 1:
        return intervals[0]
    value = sum(one.value for one in intervals) / len(intervals)
    below = math.hypot(*(one.value - one.low for one in intervals)) / len(intervals)
    above = math.hypot(*(one.high - one.value for one in intervals)) / len(intervals)
    error = math.hypot(*(one.standard_error for one in intervals)) / len(intervals)
    return Interval(value, value - below, value + above, min(one.n for one in intervals), error)


def mean_interval(data: Sequence[Sequence[Repetition]], *, resamples: int, level: float = LEVEL) -> Interval:
    """Return the mean over data sets and seeds with its interval; `data` holds as many seeds of each data set.

    The interval of a share, or of the difference of two, is that of `bounded_share` and `bounded_difference`: within 0
    and 1, and not without width where all answers are right.
    Raises DataError without a seed or where a score has no question.
    """
    values = [sum(one.value for one in seed) / len(data) for seed in zip(*data, strict=True)]
    if not values or any(map(math.isnan, values)):
        raise DataError("a score is over 0 questions in one of the seeds; evaluate at least one.")
    if len(values) == 1:
        return joined([bootstrap(one.one, one.other, resamples=resamples, level=level) for (one,) in data])
    plain = student_interval(values, shared=_shared(data), level=level)
    tables = [table for seeds in data for one in seeds for table in one.tables]
    return _bounded(data[0], plain, level) if len(data) == 1 and all(table.is_share for table in tables) else plain


def repeated_p(data: Sequence[Sequence[Repetition]]) -> float:
    """Return the two-sided p of a difference of 0 that belongs to `mean_interval`, without regard to shares.

    It is 1 less the level of the interval that ends at 0, by bisection; of one seed NaN.
    """
    values = [sum(one.value for one in seed) / len(data) for seed in zip(*data, strict=True)]
    if len(values) < 2:
        return math.nan
    mean, parts = _moments(values, _shared(data))
    if not sum(variance for variance, _ in parts):
        return float(mean == 0)
    low, high = 0.0, 1.0
    for _ in range(24):
        level = (low + high) / 2
        low, high = (level, high) if _half(parts, level) < abs(mean) else (low, level)
    return 1 - low


def _moments(values: Sequence[float], shared: Sequence[Part]) -> tuple[float, list[Part]]:
    """Return the mean of the seeds and the parts of its variance."""
    if len(values) < 2:
        raise DataError(f"{len(values)} repetitions have no interval; run at least two seeds.")
    points = np.asarray(values, dtype=np.float64)
    return float(points.mean()), [(float(points.var(ddof=1)) / len(values), len(values) - 1), *shared]


def _half(parts: Sequence[Part], level: float) -> float:
    """Return half the width of an interval of that level."""
    return math.hypot(*(student_quantile(level, freedom) * math.sqrt(variance) for variance, freedom in parts))


def student_interval(values: Sequence[float], *, shared: Sequence[Part] = (), level: float = LEVEL) -> Interval:
    """Return the mean of repetitions (seeds) with Student's interval; it needs at least two.

    `shared` are variances of what all repetitions have in common, with their degrees of freedom.
    """
    mean, parts = _moments(values, shared)
    half = _half(parts, level)
    return Interval(mean, mean - half, mean + half, len(values), math.sqrt(sum(variance for variance, _ in parts)))


def over_seeds(values: Sequence[float]) -> Interval:
    """Return the mean of the seeds' values with Student's interval; of one seed without its ends."""
    return student_interval(values) if len(values) > 1 else Interval(values[0], math.nan, math.nan, 1)


def _bounded(seeds: Sequence[Repetition], plain: Interval, level: float) -> Interval:
    """Return the interval of a share, or of the difference of two."""
    both = [[one.one for one in seeds], [one.other for one in seeds if one.other]]
    sides = [
        [Repetition(table, None, one.questions, one.data) for table, one in zip(tables, seeds, strict=True)]
        for tables in both
        if tables
    ]
    told = [_moments([one.value for one in side], _shared([side])) for side in sides]
    ends = [_share(*moments, _n_units(side), level) for moments, side in zip(told, sides, strict=True)]
    low, high = ends[0]
    if len(ends) > 1:
        one, other = (sum(variance for variance, _ in parts) for _, parts in told)
        common = one + other - plain.standard_error**2
        correlation = max(-1.0, min(1.0, common / (2 * math.sqrt(one * other)))) if one and other else 0.0
        low, high = bounded_difference([mean for mean, _ in told], ends, correlation)
    return replace(plain, low=low, high=high)


def _share(mean: float, parts: Sequence[Part], n_units: int, level: float) -> tuple[float, float]:
    """Return the ends of a share over seeds; where no seed and no question differ, the questions alone say how sure."""
    variance = sum(variance for variance, _ in parts)
    alone = student_quantile(level, max(1, n_units - 1))
    return bounded_share(mean, variance, n_units, _half(parts, level) / math.sqrt(variance) if variance > 0 else alone)


def _n_units(seeds: Sequence[Repetition]) -> int:
    """Return the number of units of questions over all seeds, those that are asked again once."""
    tables = {one.questions: one.one.merged() for one in seeds}.values()
    return sum(int(unit_numbers(table).max()) + 1 for table in tables)


def _shared(data: Sequence[Sequence[Repetition]]) -> list[Part]:
    """Return the covariance of two seeds of the mean over the data sets: one part for each data set."""
    return [(variance / len(data) ** 2, freedom) for seeds in data for variance, freedom in _covariance(seeds)]


def _covariance(seeds: Sequence[Repetition]) -> list[Part]:
    """Return the mean covariance of two seeds by what they share, nothing where it is not above 0."""
    total, parts = 0.0, list[Part]()
    for questions in dict.fromkeys(one.questions for one in seeds):
        alike = [one for one in seeds if one.questions == questions]
        share = len(alike) * (len(alike) - 1) / (len(seeds) * (len(seeds) - 1))
        if share:
            found = _covariances(alike)
            total += share * (sum(v for v, _ in found[:2]) - sum(v for v, _ in found[2:]))
            parts += [(share * max(v, 0.0), freedom) for v, freedom in found[:2]]
    return [(total, satterthwaite(parts))] if total > 0 else []


def _covariances(seeds: Sequence[Repetition]) -> list[Part]:
    """Return the covariance of two seeds through questions, and, where they share them, owners and both at once."""
    questions, cells = zip(*map(_effects, seeds), strict=True)
    owned = len({one.data for one in seeds}) == 1 and all(cell_KG.shape[1] > 1 for cell_KG in cells)
    owners = [[cell_KG.sum(axis=0) for cell_KG in cells], [cell_KG.ravel() for cell_KG in cells]] if owned else []
    return [_between(np.stack(units)) for units in (questions, *owners)]


def _between(unit_SU: Array) -> Part:
    """Return the covariance of two seeds' values through units that both have."""
    n_seeds, n_units = unit_SU.shape
    crossed = float((unit_SU.sum(axis=0) ** 2).sum() - (unit_SU**2).sum())
    freedom = max(1, n_units - 1)
    return crossed / (n_seeds * (n_seeds - 1)) * n_units / freedom, freedom


def _effects(one: Repetition) -> tuple[Array, Array]:
    """Return the influence on the value of K things asked about [K], and of each for each of G owners [K, G].

    Owners are those of the models where there are several, else the clients whose questions they are.
    """
    tables = one.tables
    many = any(len(table.total_CN) > 1 for table in tables)
    about_N = unit_numbers(tables[0], of_clients=many)
    named = [_owners(table, many=many) for table in tables]
    owners = sorted({name for names in named for name in names.ravel().tolist()})
    effect_K, effect_KG = np.zeros(about_N.max() + 1), np.zeros((about_N.max() + 1, len(owners)))
    for sign, table, names in zip((1, -1), tables, named, strict=False):
        influence_CN = sign * table.influence_CN
        np.add.at(effect_K, about_N, influence_CN.sum(axis=0))
        for g, owner in enumerate(owners if names.size else ()):
            np.add.at(effect_KG[:, g], about_N, np.where(names == owner, influence_CN, 0.0).sum(axis=0))
    return effect_K, effect_KG


def _owners(table: ScoreTable, *, many: bool) -> NDArray[np.str_]:
    """Return the owner of each answer, as one column or one row; nothing where a model or question is everybody's."""
    if many:
        return np.array(table.owner_C if len(table.total_CN) > 1 else (), dtype=np.str_).reshape(-1, 1)
    several = len(set(table.client_N) - {""}) > 1
    return np.array(table.client_N if several else (), dtype=np.str_).reshape(1, -1)
