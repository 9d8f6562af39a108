"""What a task's items say together: means with their errors and intervals, F1 of labels, differences in pairs.

A mean over items is resampled by `statistics.bootstrap`. F1 is no mean over items, but a function of how often each
(right label, found label) occurs; drawing n items with replacement draws these counts from a multinomial distribution,
which is what is done, on 95 % percentiles (Efron & Tibshirani, 1993, chapter 13). For a difference between two models
the cells are (right, found by one, found by the other), so that both are scored on the same resample.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.base.errors import DataError
from fedloom.base.files import plain
from fedloom.evaluation.statistics import Interval, ScoreTable, bootstrap, bootstrap_difference

__all__ = [
    "F1",
    "RESAMPLES",
    "Labels",
    "Score",
    "f1_difference",
    "f1_scores",
    "mean_difference",
    "mean_score",
    "verdict",
]

Array = NDArray[np.float64]

RESAMPLES = 1000
F1 = ("f1_macro", "f1_micro", "f1_weighted")


@dataclass(frozen=True)
class Score:
    """A metric of a task over n items; NaN stands where there is no error or interval."""

    value: float
    standard_error: float
    low: float
    high: float
    n: int

    def as_record(self) -> dict[str, float | int | None]:
        """Return the score as JSON values, null where there is none."""
        return plain(self)


@dataclass(frozen=True)
class Labels:
    """Right and found labels of the items, item by item; "" is found where an answer names none."""

    names: tuple[str, ...]
    right: tuple[str, ...]
    found: tuple[str, ...]


def mean_score(values: Sequence[float]) -> Score:
    """Return the mean of the items' values; its standard error is s / sqrt(n), of one item it is unknown."""
    n = len(values)
    interval = bootstrap(_table(values), resamples=RESAMPLES)
    error = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Score(interval.value, error, interval.low, interval.high, n)


def mean_difference(one: Sequence[float], other: Sequence[float]) -> Interval:
    """Return the mean of one model less that of another over the same items, with its paired interval."""
    return bootstrap_difference(_table(one), _table(other), resamples=RESAMPLES)


def _table(values: Sequence[float]) -> ScoreTable:
    return ScoreTable(np.asarray(values, dtype=np.float64)[None], np.ones((1, len(values))), ("",) * len(values))


def f1_scores(labels: Labels) -> dict[str, Score]:
    """Return macro, micro and weighted F1; the standard error is the spread of the resamples."""
    shares, counts = _cells([labels])
    result: dict[str, Score] = {}
    for name, measure in _MEASURES.items():
        values = measure(counts)
        low, high = map(float, np.percentile(values, [2.5, 97.5]))
        result[name] = Score(float(measure(shares)[0]), float(values.std(ddof=1)), low, high, len(labels.right))
    return result


def f1_difference(one: Labels, other: Labels) -> dict[str, Interval]:
    """Return the F1 of one model less that of another over the same items."""
    if one.right != other.right or one.names != other.names:
        raise DataError("the labels of two models belong to other items; compare results on the same data.")
    shares, counts = _cells([one, other])
    width = len(one.names) + 1
    cubes = [array.reshape(len(array), len(one.names), width, width) for array in (shares, counts)]
    result: dict[str, Interval] = {}
    for name, measure in _MEASURES.items():
        # Summed over what the other model found, the cube is the table of one model, and the other way round.
        value, values = (measure(cube.sum(axis=3)) - measure(cube.sum(axis=2)) for cube in cubes)
        low, high = np.percentile(values, [2.5, 97.5])
        result[name] = Interval(float(value[0]), float(low), float(high), len(one.right))
    return result


def _cells(models: Sequence[Labels]) -> tuple[Array, Array]:
    """Return how often each cell occurs, [1, L, F...] and, resampled, [R, L, F...], with F = L + 1 for no label."""
    names, right = models[0].names, models[0].right
    columns = (*names, "")
    shape = (len(names), *(len(columns) for _ in models))
    places = [[names.index(label) for label in right], *([columns.index(x) for x in m.found] for m in models)]
    flat = np.bincount(np.ravel_multi_index(places, shape), minlength=math.prod(shape)).astype(np.float64)
    random = rng.numpy_random("bootstrap", 0)
    drawn = random.multinomial(len(right), flat / flat.sum(), size=RESAMPLES).astype(np.float64)
    return flat.reshape(1, *shape), drawn.reshape(RESAMPLES, *shape)


def _per_label(table_RLF: Array) -> tuple[Array, Array, Array]:
    """Return [R, L] of hits, of items with that right label, and of items found with that label."""
    n_labels = table_RLF.shape[1]
    hits_RL = np.diagonal(table_RLF[:, :, :n_labels], axis1=1, axis2=2)
    return hits_RL, table_RLF.sum(axis=2), table_RLF.sum(axis=1)[:, :n_labels]


def _f1(hits: Array, right: Array, found: Array) -> Array:
    total = right + found
    return np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)


def _macro(table_RLF: Array) -> Array:
    return _f1(*_per_label(table_RLF)).mean(axis=1)


def _micro(table_RLF: Array) -> Array:
    hits, right, found = (part.sum(axis=1) for part in _per_label(table_RLF))
    return _f1(hits, right, found)


def _weighted(table_RLF: Array) -> Array:
    hits_RL, right_RL, found_RL = _per_label(table_RLF)
    return (_f1(hits_RL, right_RL, found_RL) * right_RL).sum(axis=1) / right_RL.sum(axis=1)


_MEASURES: Mapping[str, Callable[[Array], Array]] = dict(zip(F1, (_macro, _micro, _weighted), strict=True))


def verdict(difference: Interval, *, higher_is_better: bool | None) -> str:
    """Return whether the first model is better: only where the interval of the difference leaves out 0."""
    if higher_is_better is None or not (difference.low > 0 or difference.high < 0):
        return "no difference shown" if higher_is_better is not None else "neither is better"
    return "better" if (difference.low > 0) == higher_is_better else "worse"
