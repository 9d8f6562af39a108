"""What a task's items say together: means with their errors and intervals, F1 of labels, differences in pairs.

A mean over items is resampled by `statistics.bootstrap`. F1 is no mean over items, but a function of how often each
(right label, found label) occurs; drawing n items with replacement draws these counts from a multinomial distribution,
which is what is done, on 95 % percentiles (Efron & Tibshirani, 1993, chapter 13). For a difference between two models
the cells are (right, found by one, found by the other), so that both are scored on the same resample.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.base.errors import DataError
from fedloom.evaluation.intervals import Interval, verdict
from fedloom.evaluation.statistics import ScoreTable, bootstrap

__all__ = [
    "F1",
    "RESAMPLES",
    "SCORE",
    "Labels",
    "f1_difference",
    "f1_scores",
    "in_words",
    "mean_difference",
    "mean_score",
]

Array = NDArray[np.float64]

RESAMPLES = 1000
F1 = ("f1_macro", "f1_micro", "f1_weighted")
SCORE = ("value", "standard_error", "low", "high", "n")
"""What is written of a score over n items."""


@dataclass(frozen=True)
class Labels:
    """Right and found labels of the items, item by item; "" is found where an answer names none."""

    names: tuple[str, ...]
    right: tuple[str, ...]
    found: tuple[str, ...]

    @classmethod
    def of(cls, items: Sequence[Mapping[str, Any]], names: tuple[str, ...]) -> "Labels":
        """Return the labels of items as they are written."""
        return cls(names, *(tuple(item[name] for item in items) for name in ("right", "label")))


def mean_score(values: Sequence[float]) -> Interval:
    """Return the mean of the items' values; its standard error is s / sqrt(n), of one item it is unknown."""
    n = len(values)
    interval = bootstrap(_table(values), resamples=RESAMPLES)
    error = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Interval(interval.value, interval.low, interval.high, n, error)


def mean_difference(one: Sequence[float], other: Sequence[float]) -> Interval:
    """Return the mean of one model less that of another over the same items, with its paired interval."""
    return bootstrap(_table(one), _table(other), resamples=RESAMPLES)


def _table(values: Sequence[float]) -> ScoreTable:
    return ScoreTable(np.asarray(values, dtype=np.float64)[None], np.ones((1, len(values))), ("",) * len(values))


def f1_scores(labels: Labels) -> dict[str, Interval]:
    """Return macro, micro and weighted F1; the standard error is the spread of the resamples."""
    shares, counts = _cells([labels])
    return _intervals(_f1_of(shares), _f1_of(counts), len(labels.right))


def f1_difference(one: Labels, other: Labels) -> dict[str, Interval]:
    """Return the F1 of one model less that of another over the same items."""
    if one.right != other.right or one.names != other.names:
        raise DataError("the labels of two models belong to other items; compare results on the same data.")
    # Summed over what the other model found, the cube is the table of one model, and the other way round.
    value_31, value_3R = (_f1_of(cube.sum(axis=3)) - _f1_of(cube.sum(axis=2)) for cube in _cells([one, other]))
    return _intervals(value_31, value_3R, len(one.right))


def _intervals(value_31: Array, value_3R: Array, n: int) -> dict[str, Interval]:
    """Return each F1 with its percentile interval over the resamples."""
    low_3, high_3 = np.percentile(value_3R, [2.5, 97.5], axis=1)
    ends = np.stack([value_31[:, 0], low_3, high_3, value_3R.std(axis=1, ddof=1)], axis=1).tolist()
    return {
        name: Interval(value, low, high, n, error) for name, (value, low, high, error) in zip(F1, ends, strict=True)
    }


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


def _f1_of(table_RLF: Array) -> Array:
    """Return macro, micro and weighted F1 of how often each (right, found) occurs, [3, R]."""
    n_labels = table_RLF.shape[1]
    hits_RL = np.diagonal(table_RLF[:, :, :n_labels], axis1=1, axis2=2)
    right_RL, found_RL = table_RLF.sum(axis=2), table_RLF.sum(axis=1)[:, :n_labels]
    f1_RL = _f1(hits_RL, right_RL, found_RL)
    micro_R = _f1(*(part.sum(axis=1) for part in (hits_RL, right_RL, found_RL)))
    return np.stack([f1_RL.mean(axis=1), micro_R, (f1_RL * right_RL).sum(axis=1) / right_RL.sum(axis=1)])


def _f1(hits: Array, right: Array, found: Array) -> Array:
    total = right + found
    return np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)


def in_words(difference: Interval, *, higher_is_better: bool | None) -> str:
    """Return whether the first model is better, in words."""
    if higher_is_better is None:
        return "neither is better"
    told = verdict(difference, 1 if higher_is_better else -1)
    return "no difference shown" if told == "undecided" else told
