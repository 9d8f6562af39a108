"""Intervals: bootstrap over questions and clients, Student's over seeds.

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

__all__ = ["Interval", "ScoreTable", "bootstrap", "bootstrap_difference", "student_interval", "worst_share"]

Array = NDArray[np.float64]

_DRAWS = 4_000_000  # counts held at once, so that memory does not grow with the number of questions

# 97.5 % points of Student's t for 1 to 30 degrees of freedom.
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval and the number of questions behind it."""

    value: float
    low: float
    high: float
    n: int

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

    @property
    def value(self) -> float:
        """The mean: all totals over all weights; NaN without any weight."""
        weight = float(self.weight_CN.sum())
        return float(self.total_CN.sum()) / weight if weight > 0 else math.nan

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
    table = table.merged()
    _check(table)
    drawn = _draws(len(table.total_CN), table.client_N, resamples, seed)
    values = np.concatenate([table.ratios(*counts) for counts in drawn])
    return _percentiles(table.value, values, len(table.client_N))


def bootstrap_difference(one: ScoreTable, other: ScoreTable, *, resamples: int, seed: int = 0) -> Interval:
    """Return the difference of two means over the same questions, both taken over the same resamples.

    A shared model (one row) may be paired with the models of many clients; the columns have to be the same questions
    and rows, where both have several, the same clients.
    """
    one, other = one.merged(), other.merged()
    rows, others = len(one.total_CN), len(other.total_CN)
    if one.client_N != other.client_N or (rows > 1 and others > 1 and rows != others):
        raise DataError(
            f"scores {one.total_CN.shape} and {other.total_CN.shape} (models, questions) cannot be paired; allowed "
            "are the same questions, and the same clients or one model for all."
        )
    _check(one)
    _check(other)
    drawn = _draws(max(rows, others), one.client_N, resamples, seed)
    values = np.concatenate([one.ratios(*counts) - other.ratios(*counts) for counts in drawn])
    return _percentiles(one.value - other.value, values, len(one.client_N))


def _check(table: ScoreTable) -> None:
    if math.isnan(table.value):
        raise DataError("a score over 0 questions has no interval; evaluate at least one.")


def _percentiles(value: float, values: Array, n: int) -> Interval:
    known = values[~np.isnan(values)]
    # A resample may miss every question that has weight; if all do, there is a value but no interval.
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (math.nan, math.nan)
    return Interval(value, float(low), float(high), n)


def _draws(n_rows: int, client_N: Sequence[str], resamples: int, seed: int) -> Iterator[tuple[Array, Array]]:
    """Yield how often each row [R, C] and each column [R, N] is drawn, some resamples at a time."""
    random = rng.numpy_random("bootstrap", seed)
    clusters = _clusters(client_N)
    block = max(1, _DRAWS // (n_rows + len(client_N)))
    for first in range(0, resamples, block):
        count = min(block, resamples - first)
        row_RC = _with_replacement(random, count, n_rows) if n_rows > 1 else np.ones((count, 1), dtype=np.int64)
        cluster_RK = _with_replacement(random, count, len(clusters))
        column_RN = np.empty((count, len(client_N)))
        single = [(k, columns[0]) for k, columns in enumerate(clusters) if len(columns) == 1]
        column_RN[:, [column for _, column in single]] = cluster_RK[:, [k for k, _ in single]]
        for k, columns in enumerate(clusters):
            if len(columns) > 1:
                even = np.full(len(columns), 1 / len(columns))
                column_RN[:, columns] = random.multinomial(cluster_RK[:, k] * len(columns), even)
        yield row_RC.astype(np.float64), column_RN


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


def student_interval(values: Sequence[float]) -> Interval:
    """Return the mean of repetitions (seeds) with Student's 95 % interval; it needs at least two."""
    if len(values) < 2:
        raise DataError(f"{len(values)} repetitions have no interval; run at least two seeds.")
    points = np.asarray(values, dtype=np.float64)
    critical = _STUDENT[min(len(values) - 1, len(_STUDENT)) - 1]
    half = critical * float(points.std(ddof=1)) / math.sqrt(len(values))
    mean = float(points.mean())
    return Interval(mean, mean - half, mean + half, len(values))


def worst_share(values: Sequence[float], share: float = 0.1) -> float:
    """Return the mean of the lowest `share` of the values, at least one of them (the worst decile by default)."""
    count = max(1, math.ceil(share * len(values)))
    return float(np.mean(sorted(values)[:count]))
