"""Intervals and tests: bootstrap over questions and clients, Student's over seeds, flipped signs for pairs.

A score is a total over a weight for each question (weight 1 for exact match, the number of tokens for a loss), so one
resampling serves all of them, and a paired difference is the difference of two such ratios over the same resamples.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom import rng
from fedloom.errors import DataError

__all__ = [
    "LEVEL",
    "Interval",
    "ScoreTable",
    "bootstrap",
    "bootstrap_difference",
    "holm",
    "resampled",
    "sign_flip",
    "student_interval",
    "student_quantile",
    "worst_share",
]

Array = NDArray[np.float64]

_DRAWS = 4_000_000  # counts held at once, so that memory does not grow with the number of questions

LEVEL = 0.95
"""How often an interval holds the value, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval, of 95 % where nothing else is said, and the number of questions or seeds behind it."""

    value: float
    low: float
    high: float
    n: int
    standard_error: float = math.nan

    def __format__(self, spec: str) -> str:
        """Format as `value [low, high]`, each by `spec`."""
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


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
        return ScoreTable(self.total_CN.sum(axis=0)[None], self.weight_CN.sum(axis=0)[None], self.client_N)

    def ratios(self, row_RC: Array, column_RN: Array) -> Array:
        """Return the mean of each of R resamples; NaN where it has no weight."""
        rows_RC = row_RC if len(self.total_CN) > 1 else np.ones((len(row_RC), 1))
        total_R = ((column_RN @ self.total_CN.T) * rows_RC).sum(axis=1)
        weight_R = ((column_RN @ self.weight_CN.T) * rows_RC).sum(axis=1)
        return np.divide(total_R, weight_R, out=np.full(len(row_RC), math.nan), where=weight_R > 0)


def bootstrap(table: ScoreTable, *, resamples: int, seed: int = 0) -> Interval:
    """Return the mean of a score with its percentile interval (Efron & Tibshirani, 1993, chapter 13).

    Columns are drawn with replacement; where questions belong to clients, in two stages: clients, then questions of
    each (Davison & Hinkley, 1997, section 3.8; where clients do not differ, this errs on the wide side). Rows are the
    models of clients that were asked the same questions and are drawn too.
    """
    values_RM = resampled([table], resamples=resamples, seed=seed)
    return _percentiles(table.value, values_RM[:, 0], table.n_questions, LEVEL)


def bootstrap_difference(
    one: ScoreTable, other: ScoreTable, *, resamples: int, seed: int = 0, level: float = LEVEL
) -> Interval:
    """Return the difference of two means over the same questions, both taken over the same resamples.

    The columns have to be the same questions. Models of the same owners are drawn together; a shared model (one row)
    may be paired with the models of many clients, and those of other owners are drawn by themselves.
    """
    values_RM = resampled([one, other], resamples=resamples, seed=seed)
    n = min(one.n_questions, other.n_questions)
    return _percentiles(one.value - other.value, values_RM[:, 0] - values_RM[:, 1], n, level)


def resampled(tables: Sequence[ScoreTable], *, resamples: int, seed: int | str = 0) -> Array:
    """Return the means [R, M] of M scores over the same R resamples of the same questions."""
    for table in tables:
        _check(table)
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
        for rows, columns in _draws([count for _, count in groups], first.client_N, resamples, seed)
    ]
    return np.concatenate(means, axis=1).T


def _check(table: ScoreTable) -> None:
    if math.isnan(table.value):
        raise DataError("a score over 0 questions has no interval; evaluate at least one.")


def _percentiles(value: float, values: Array, n: int, level: float) -> Interval:
    known = values[~np.isnan(values)]
    # A resample may miss every question that has weight; if all do, there is a value but no interval.
    if not len(known):
        return Interval(value, math.nan, math.nan, n)
    tail = 50 * (1 - level)
    low, high = np.percentile(known, [tail, 100 - tail])
    error = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    return Interval(value, float(low), float(high), n, error)


def _draws(
    n_rows: Sequence[int], client_N: Sequence[str], resamples: int, seed: int | str
) -> Iterator[tuple[list[Array], Array]]:
    """Yield how often each row [R, C] of each group and each column [R, N] is drawn, some resamples at a time."""
    random = rng.numpy_random("bootstrap", seed)
    clusters = _clusters(client_N)
    block = max(1, _DRAWS // (sum(n_rows) + len(client_N)))
    for first in range(0, resamples, block):
        count = min(block, resamples - first)
        rows = [_with_replacement(random, count, n) if n > 1 else np.ones((count, 1), dtype=np.int64) for n in n_rows]
        cluster_RK = _with_replacement(random, count, len(clusters))
        column_RN = np.empty((count, len(client_N)))
        single = [(k, columns[0]) for k, columns in enumerate(clusters) if len(columns) == 1]
        column_RN[:, [column for _, column in single]] = cluster_RK[:, [k for k, _ in single]]
        for k, columns in enumerate(clusters):
            if len(columns) > 1:
                even = np.full(len(columns), 1 / len(columns))
                column_RN[:, columns] = random.multinomial(cluster_RK[:, k] * len(columns), even)
        yield [row_RC.astype(np.float64) for row_RC in rows], column_RN


def _clusters(client_N: Sequence[str]) -> list[list[int]]:
    """Return the columns of each client; a question of no client is on its own, and all are if there is one client."""
    columns: dict[str | int, list[int]] = {}
    several = len({client for client in client_N if client}) > 1
    for index, client in enumerate(client_N):
        columns.setdefault(client if client and several else index, []).append(index)
    return list(columns.values())


def _with_replacement(random: np.random.Generator, resamples: int, n: int) -> NDArray[np.int64]:
    """Return how often each of n things is drawn in n draws, per resample [R, n]."""
    drawn_RN = random.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn_RN.ravel(), minlength=resamples * n).reshape(resamples, n)


def student_interval(values: Sequence[float], *, level: float = LEVEL) -> Interval:
    """Return the mean of repetitions (seeds) with Student's interval; it needs at least two."""
    if len(values) < 2:
        raise DataError(f"{len(values)} repetitions have no interval; run at least two seeds.")
    points = np.asarray(values, dtype=np.float64)
    error = float(points.std(ddof=1)) / math.sqrt(len(values))
    half = student_quantile(level, len(values) - 1) * error
    mean = float(points.mean())
    return Interval(mean, mean - half, mean + half, len(values), error)


def student_quantile(level: float, freedom: int) -> float:
    """Return t such that a Student variable of that many degrees of freedom lies in [-t, t] with probability `level`.

    By bisection of the probability, which is a finite sum (Abramowitz & Stegun, 1964, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, 1.0
    while _student_inside(high, freedom) < level:
        high *= 2
    for _ in range(60):
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


def sign_flip(pairs: Sequence[tuple[ScoreTable, ScoreTable]], *, resamples: int = 9_999, seed: int = 0) -> float:
    """Return the two-sided p of no difference between two models, by swapping them question by question.

    If it does not matter which of the two answered, swapping their scores on any question changes nothing (Fisher,
    1935, section 21). The statistic is the mean over the pairs of the difference of the means; questions of one client
    are swapped together, as what a client has in common is no repetition. Of C models that answer the same question
    their mean counts. All swaps are tried where there are few, else `resamples` random ones, of which the observed one
    counts as one more (Phipson & Smyth, 2010, doi:10.2202/1544-6115.1585).
    """
    units = [_units(one, other) for one, other in pairs]
    count = sum(part.shape[1] for part in units)
    if 2**count <= resamples:
        swap_RU = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    else:
        swap_RU = rng.numpy_random("sign_flip", seed).integers(2, size=(resamples, count))
    found, first = np.zeros(len(swap_RU)), 0
    for part in units:
        found += _swapped(part, swap_RU[:, first : first + part.shape[1]].astype(np.float64))
        first += part.shape[1]
    observed = sum(float(_swapped(part, np.zeros((1, part.shape[1])))[0]) for part in units)
    # Swaps that leave a model no question with weight have no difference: they speak for neither, so they count.
    extreme = len(found) - int((np.abs(found) < abs(observed) - 1e-12).sum())
    return extreme / len(found) if len(found) == 2**count else (extreme + 1) / (len(found) + 1)


def _units(one: ScoreTable, other: ScoreTable) -> Array:
    """Return totals and weights of both models [4, U] by question, or by client where questions belong to clients."""
    clusters = _clusters(one.client_N)
    columns_4N = np.stack([column for table in (one, other) for column in _per_question(table)])
    return np.stack([columns_4N[:, columns].sum(axis=1) for columns in clusters], axis=1)


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


def worst_share(values: Sequence[float], share: float = 0.1) -> float:
    """Return the mean of the lowest `share` of the values, at least one of them (the worst decile by default)."""
    count = max(1, math.ceil(share * len(values)))
    return float(np.mean(sorted(values)[:count]))
