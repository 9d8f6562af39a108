"""Intervals and tests of one run: bootstrap over questions and clients, flipped signs for pairs.

A score is a total over a weight for each question (weight 1 for exact match, the number of tokens for a loss), so one
resampling serves all of them, and a paired difference is the difference of two such ratios over the same resamples.
Questions about one thing, as three wordings of a fact are, stand or fall together: they are drawn and swapped as one.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.base.errors import DataError
from fedloom.evaluation.intervals import (
    LEVEL,
    Interval,
    bounded_difference,
    bounded_share,
    satterthwaite,
    student_quantile,
)

__all__ = [
    "LEVEL",
    "Array",
    "Interval",
    "ScoreTable",
    "bootstrap",
    "drawn_interval",
    "holm",
    "question_units",
    "resampled",
    "sign_flip",
    "unit_numbers",
]

Array = NDArray[np.float64]

_DRAWS = 4_000_000  # counts held at once, so that memory does not grow with the number of questions


@dataclass(frozen=True)
class ScoreTable:
    """A score of C models on N questions."""

    total_CN: Array
    weight_CN: Array
    """Weight 0 where a model was not asked."""
    client_N: tuple[str, ...]
    """Whose question it is; "" for one that belongs to no client."""
    owner_C: tuple[str, ...] = ()
    """Whose the models are; two tables of the same owners are resampled alike."""
    cluster_N: tuple[str, ...] = ()
    """What the question is about; "" for one that is by itself, empty where all are."""

    @property
    def value(self) -> float:
        """The mean: all totals over all weights; NaN without any weight."""
        weight = float(self.weight_CN.sum())
        return float(self.total_CN.sum()) / weight if weight > 0 else math.nan

    @property
    def n_questions(self) -> int:
        """Questions that the score is over: those with a weight."""
        return int((self.weight_CN > 0).any(axis=0).sum())

    def merged(self) -> "ScoreTable":
        """Return one row if no question was put to more than one model, as when clients answer their own ones.

        Such rows are the clients of the columns, which the resampling of columns already draws.
        """
        if not len(self.total_CN) or int((self.weight_CN > 0).sum(axis=0).max(initial=0)) > 1:
            return self
        return replace(self, total_CN=self.total_CN.sum(axis=0)[None], weight_CN=self.weight_CN.sum(axis=0)[None])

    @property
    def is_share(self) -> bool:
        """Whether the score is a share: every answer right or wrong, each counting 1."""
        asked_CN = self.weight_CN > 0
        told = self.total_CN[asked_CN]
        return bool((self.weight_CN[asked_CN] == 1).all() and ((told == 0) | (told == 1)).all())

    @property
    def influence_CN(self) -> Array:
        """By how much each answer moves the value: to first order, a resample that draws it twice gains as much."""
        return (self.total_CN - self.value * self.weight_CN) / self.weight_CN.sum()

    def ratios(self, row_RC: Array, column_RN: Array) -> Array:
        """Return the mean of each of R resamples; NaN where it has no weight."""
        rows_RC = row_RC if len(self.total_CN) > 1 else np.ones((len(row_RC), 1))
        total_R = ((column_RN @ self.total_CN.T) * rows_RC).sum(axis=1)
        weight_R = ((column_RN @ self.weight_CN.T) * rows_RC).sum(axis=1)
        return np.divide(total_R, weight_R, out=np.full(len(row_RC), math.nan), where=weight_R > 0)


def bootstrap(
    one: ScoreTable, other: ScoreTable | None = None, *, resamples: int, seed: int = 0, level: float = LEVEL
) -> Interval:
    """Return a mean, or what it is more than another, with its interval (Efron & Tibshirani, 1993, chapter 13).

    Questions are drawn with replacement, those about one thing together; where they belong to clients, in two stages:
    clients, then what the questions of each are about (Davison & Hinkley, 1997, section 3.8; where clients do not
    differ, this errs on the wide side); what questions of several clients are about is drawn across them besides
    (Owen, 2007, doi:10.1214/07-AOAS122). Rows are the models of clients that were asked the same questions and are
    drawn too. The interval is the percentile one, as much wider as Student's is than the normal one for so few units
    (Hesterberg, 2015, doi:10.1080/00031305.2015.1089789); that of a share is `bounded_share`.

    A difference takes both means over the same resamples. The columns have to be the same questions. Models of the same
    owners are drawn together; a shared model (one row) may be paired with the models of many clients, and those of
    other owners are drawn by themselves. The interval of two shares is `bounded_difference`.
    """
    tables = [one] if other is None else [one, other]
    return _interval(tables, resampled(tables, resamples=resamples, seed=seed), level)


def _interval(tables: Sequence[ScoreTable], values_RM: Array, level: float) -> Interval:
    """Return the first score, or what it is more than the second, with its interval."""
    values = [table.value for table in tables]
    value = values[0] - sum(values[1:])
    n = min(table.n_questions for table in tables)
    known_RM = values_RM[~np.isnan(values_RM).any(axis=1)]
    # A resample may miss every question that has weight; if all do, there is a value but no interval.
    if not len(known_RM):
        return Interval(value, math.nan, math.nan, n)
    draws_R = known_RM[:, 0] - known_RM[:, 1:].sum(axis=1)
    variance = float(draws_R.var(ddof=1)) if len(draws_R) > 1 else math.nan
    tables = [table.merged() for table in tables]
    freedom = _freedom(tables)
    t = student_quantile(level, freedom)
    if all(table.is_share for table in tables) and not math.isnan(variance):
        n_units = [_n_units(table) for table in tables]
        variances = np.atleast_2d(np.cov(known_RM.T)).diagonal().tolist()
        ends = [bounded_share(*told, t) for told in zip(values, variances, n_units, strict=True)]
        correlation = _correlation(known_RM) if len(ends) > 1 else 0.0
        low, high = ends[0] if len(ends) == 1 else bounded_difference(values, ends, correlation)
    else:
        low, high = _percentiles(draws_R, t, freedom)
    return Interval(value, low, high, n, math.sqrt(variance), _effective(tables, variance, n))


def drawn_interval(value: float, draws_R: Array, n_units: int) -> Interval:
    """Return a value with its percentile interval over resamples of so many units."""
    freedom = max(1, n_units - 1)
    low, high = _percentiles(draws_R, student_quantile(LEVEL, freedom), freedom)
    return Interval(value, low, high, n_units, float(draws_R.std(ddof=1)))


def _percentiles(draws_R: Array, t: float, freedom: int) -> tuple[float, float]:
    tail = 100 * NormalDist().cdf(-t * math.sqrt((freedom + 1) / freedom))
    low, high = np.percentile(draws_R, [tail, 100 - tail])
    return float(low), float(high)


def _correlation(values_RM: Array) -> float:
    one_R, other_R = values_RM.T
    spread = float(one_R.std() * other_R.std())
    return float(np.corrcoef(one_R, other_R)[0, 1]) if spread > 0 else 0.0


def _influences(tables: Sequence[ScoreTable]) -> tuple[Array, list[Array]]:
    """Return the influence on the difference of each question [N], and of each owner of models where there are several.

    Models of the same owners count together.
    """
    signed = [sign * table.influence_CN for sign, table in zip((1, -1), tables, strict=False)]
    column_N = np.sum([influence_CN.sum(axis=0) for influence_CN in signed], axis=0)
    rows: dict[tuple[tuple[str, ...], int], Array] = {}
    for influence_CN, table in zip(signed, tables, strict=True):
        row_C = rows.setdefault((table.owner_C, len(influence_CN)), np.zeros(len(influence_CN)))
        row_C += influence_CN.sum(axis=1)
    return column_N, [row_C for row_C in rows.values() if len(row_C) > 1]


def _freedom(tables: Sequence[ScoreTable]) -> int:
    """Return the degrees of freedom of a value that questions and owners of models both move (Satterthwaite, 1946)."""
    column_N, rows = _influences(tables)
    units = [np.bincount(unit_numbers(tables[0]), weights=column_N), *rows]
    parts = [(float((unit**2).sum()), len(unit) - 1) for unit in units if len(unit) > 1]
    return satterthwaite(parts)


def _effective(tables: Sequence[ScoreTable], variance: float, n: int) -> float:
    """Return how many independent questions would have as small a variance, at most n; of none as many as units."""
    if not variance > 0:
        return float(min(map(_n_units, tables)))
    column_N, _ = _influences(tables)
    return min(float(n), n * float((column_N**2).sum()) * n / (n - 1) / variance) if n > 1 else 1.0


def _n_units(table: ScoreTable) -> int:
    """Return the number of units that are drawn, of those that were asked anything."""
    asked_N = (table.weight_CN > 0).any(axis=0)
    return len(set(unit_numbers(table)[asked_N].tolist()))


def resampled(tables: Sequence[ScoreTable], *, resamples: int, seed: int | str = 0) -> Array:
    """Return the means [R, M] of M scores over the same R resamples of the same questions."""
    if any(math.isnan(table.value) for table in tables):
        raise DataError("a score over 0 questions has no interval; evaluate at least one.")
    tables = [table.merged() for table in tables]
    first = tables[0]
    for table in tables:
        if table.client_N != first.client_N:
            raise DataError(
                f"scores {first.total_CN.shape} and {table.total_CN.shape} (models, questions) cannot be paired; "
                "allowed are the same questions of the same clients."
            )
    # Rows with the same owners are the same draw: each set of owners is drawn once.
    groups = list(dict.fromkeys((table.owner_C, len(table.total_CN)) for table in tables))
    means = [
        np.stack([table.ratios(rows[groups.index((table.owner_C, len(table.total_CN)))], columns) for table in tables])
        for rows, columns in _draws([count for _, count in groups], first, resamples, seed)
    ]
    return np.concatenate(means, axis=1).T


def _draws(
    n_rows: Sequence[int], table: ScoreTable, resamples: int, seed: int | str
) -> Iterator[tuple[list[Array], Array]]:
    """Yield how often each row [R, C] of each group and each column [R, N] is drawn, some resamples at a time."""
    random = rng.numpy_random("bootstrap", seed)
    outer, unit_N, about = question_units(table), unit_numbers(table), _about(table)
    across = _across(outer, about)
    within = [[columns for columns in _grouped(about, unit) if columns[0] not in across] for unit in outer]
    crossing = _grouped(about, sorted(across))
    block = max(1, _DRAWS // (sum(n_rows) + len(about)))
    for first in range(0, resamples, block):
        count = min(block, resamples - first)
        rows = [_with_replacement(random, count, n) if n > 1 else np.ones((count, 1), dtype=np.int64) for n in n_rows]
        outer_RK = _with_replacement(random, count, len(outer))
        column_RN = outer_RK.take(unit_N, axis=1).astype(np.float64)
        for k, groups in enumerate(within):
            if len(groups) > 1:
                even = np.full(len(groups), 1 / len(groups))
                drawn_RG = random.multinomial(outer_RK[:, k] * len(groups), even)
                for g, columns in enumerate(groups):
                    column_RN[:, columns] = drawn_RG[:, g, None]
        if crossing:
            drawn_RG = _with_replacement(random, count, len(crossing))
            for g, columns in enumerate(crossing):
                column_RN[:, columns] *= drawn_RG[:, g, None]
        yield [row_RC.astype(np.float64) for row_RC in rows], column_RN


def question_units(table: ScoreTable, *, of_clients: bool = True) -> list[list[int]]:
    """Return the columns of each unit: of each client where there are several, else of what questions are about."""
    several = of_clients and len({client for client in table.client_N if client}) > 1
    about = _about(table)
    names = [client if client and several else about[n] for n, client in enumerate(table.client_N)]
    return _grouped(names, range(len(names)))


def unit_numbers(table: ScoreTable, *, of_clients: bool = True) -> NDArray[np.int64]:
    """Return the number of each column's unit [N]."""
    numbers = np.empty(len(table.client_N), dtype=np.int64)
    for number, columns in enumerate(question_units(table, of_clients=of_clients)):
        numbers[columns] = number
    return numbers


def _about(table: ScoreTable) -> list[str | int]:
    """Return what each question is about, in a form that no client's name has: one by itself its own number."""
    return [
        f"\0{cluster}" if cluster else n for n, cluster in enumerate(table.cluster_N or ("",) * len(table.client_N))
    ]


def _grouped(names: Sequence[str | int], columns: Iterable[int]) -> list[list[int]]:
    groups: dict[str | int, list[int]] = {}
    for column in columns:
        groups.setdefault(names[column], []).append(column)
    return list(groups.values())


def _across(outer: Sequence[Sequence[int]], about: Sequence[str | int]) -> set[int]:
    """Return the columns about something that columns of another unit are about, too."""
    counts = Counter(name for unit in outer for name in {about[column] for column in unit})
    return {column for column, name in enumerate(about) if counts[name] > 1}


def _with_replacement(random: np.random.Generator, resamples: int, n: int) -> NDArray[np.int64]:
    """Return how often each of n things is drawn in n draws, per resample [R, n]."""
    drawn_RN = random.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn_RN.ravel(), minlength=resamples * n).reshape(resamples, n)


def sign_flip(pairs: Sequence[tuple[ScoreTable, ScoreTable]], *, resamples: int = 9_999) -> float:
    """Return the two-sided p of no difference between two models, by swapping them question by question.

    If it does not matter which of the two answered, swapping their scores on any question changes nothing (Fisher,
    1935, section 21). The statistic is the mean over the pairs of the difference of the means. Questions of one client
    are swapped together, else those about one thing: what they have in common is no repetition. Of C models that answer
    the same question their mean counts. All swaps are tried where there are few, else `resamples` random ones, of which
    the observed one counts as one more (Phipson & Smyth, 2010, doi:10.2202/1544-6115.1585).
    """
    units = [_units(one, other) for one, other in pairs]
    count = sum(part.shape[1] for part in units)
    swap_RU = _swaps(resamples, count)
    found, first = np.zeros(len(swap_RU)), 0
    for part in units:
        found += _swapped(part, swap_RU[:, first : first + part.shape[1]].astype(np.float64))
        first += part.shape[1]
    observed = sum(float(_swapped(part, np.zeros((1, part.shape[1])))[0]) for part in units)
    # Swaps that leave a model no question with weight have no difference: they speak for neither, so they count.
    extreme = len(found) - int((np.abs(found) < abs(observed) - 1e-12).sum())
    return extreme / len(found) if len(found) == 2**count else (extreme + 1) / (len(found) + 1)


@lru_cache(1)
def _swaps(resamples: int, count: int) -> NDArray[np.int8]:
    """Return all swaps of so many units, or as many random ones [R, U]: for all pairs of a suite the same."""
    if 2**count <= resamples:
        return ((np.arange(2**count)[:, None] >> np.arange(count)) & 1).astype(np.int8)
    return rng.numpy_random("sign_flip", 0).integers(2, size=(resamples, count)).astype(np.int8)


def _units(one: ScoreTable, other: ScoreTable) -> Array:
    """Return totals and weights of both models [4, U] by unit."""
    columns_4N = np.stack([column for table in (one, other) for column in _per_question(table)])
    return np.stack([columns_4N[:, columns].sum(axis=1) for columns in question_units(one)], axis=1)


def _per_question(table: ScoreTable) -> tuple[Array, Array]:
    asked_N = np.maximum((table.weight_CN > 0).sum(axis=0), 1)
    return table.total_CN.sum(axis=0) / asked_N, table.weight_CN.sum(axis=0) / asked_N


def _swapped(part_4U: Array, swap_RU: Array) -> Array:
    """Return the difference of the means of two models after the swaps [R]."""
    total_U, weight_U, other_total_U, other_weight_U = part_4U
    total_R, weight_R = swap_RU @ (other_total_U - total_U), swap_RU @ (other_weight_U - weight_U)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (total_U.sum() + total_R) / (weight_U.sum() + weight_R) - (other_total_U.sum() - total_R) / (
            other_weight_U.sum() - weight_R
        )


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, 1979, https://www.jstor.org/stable/4615733).

    >>> holm([0.01, 0.5, 0.02])
    [0.03, 0.5, 0.04]
    """
    corrected = [0.0] * len(values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = highest
    return corrected
