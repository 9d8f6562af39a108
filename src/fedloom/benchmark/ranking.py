"""Methods against methods: values over seeds and data sets, rankings, paired differences and tests.

One seed: bootstrap intervals over questions and clients. Several: Student's intervals over the seeds, of which each is
a whole run. The test of a pair swaps the two methods' answers question by question and so covers the questions; the
interval covers the seeds: `better` needs both.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedloom.base.errors import DataError
from fedloom.base.rng import numpy_random
from fedloom.benchmark.stated import BASE
from fedloom.benchmark.suite import SuiteOutcome
from fedloom.evaluation.intervals import Verdict, verdict
from fedloom.evaluation.repetitions import Repetition, repeated_p
from fedloom.evaluation.statistics import LEVEL, Array, Interval, ScoreTable, holm, resampled, sign_flip
from fedloom.results.estimates import TEST, Phase, Runs, contrast, estimate, repetitions
from fedloom.results.outcome import Choice
from fedloom.results.per_client import direction

__all__ = ["ALL", "PairRow", "RankRow", "gap", "mean_value", "pair_rows", "rank_rows"]

ALL = "(mean)"
"""Stands for the mean over the data sets, each counting alike."""

_SWAPS = 4_999


@dataclass(frozen=True)
class PairRow:
    """A method less another on the same questions of the test, by the headline score."""

    data: str
    score: str
    first: str
    second: str
    difference: Interval
    p: float
    """Two-sided: by swapped answers, or of the interval over the seeds, whichever is larger; NaN untested."""
    corrected_p: float
    """Corrected for all pairs of the data set (Holm)."""
    verdict: Verdict
    """Whether the first is better: undecided where the interval contains 0 or the corrected p is 0.05 or more."""

    def turned(self) -> "PairRow":
        """Return the second less the first."""
        told: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}
        one = self.difference
        turned = replace(one, value=-one.value, low=-one.high, high=-one.low)
        sides = {"first": self.second, "second": self.first}
        return replace(self, **sides, difference=turned, verdict=told.get(self.verdict, self.verdict))


@dataclass(frozen=True)
class RankRow:
    """Where a method stands, 1 being the best; ties share the mean of their places.

    Beside others, one that pools all data is a bound and no rival: its place is NaN.
    """

    data: str
    method: str
    score: str
    value: Interval
    rank: Interval
    """Over resamples of the seeds and of the questions."""


def _comparable(found: SuiteOutcome, data: Sequence[str]) -> list[str]:
    """Return the methods whose every run on the data sets has ended and has the headline score."""

    def is_whole(method: str) -> bool:
        runs = [(run, found.suite.headline(name)) for name in data for run in found.runs(name, method).values()]
        told = [not math.isnan(run.part(TEST).table(score).value) for run, score in runs]
        return len(told) == len(data) * len(found.seeds) and all(told)

    return [method for method in found.methods if is_whole(method)]


def _headlines(found: SuiteOutcome, data: Sequence[str]) -> list[str]:
    return [found.suite.headline(name) for name in data]


def _label(found: SuiteOutcome, data: Sequence[str]) -> tuple[str, str]:
    """Return data set and score of rows about one data set, or about the mean of several."""
    return (data[0] if len(data) == 1 else ALL), " / ".join(dict.fromkeys(_headlines(found, data)))


def _sign(found: SuiteOutcome, data: Sequence[str]) -> int:
    """Return whether more or less of the headline scores is better; 0 where they do not agree."""
    signs = set(map(direction, _headlines(found, data)))
    return signs.pop() if len(signs) == 1 else 0


def rank_rows(found: SuiteOutcome, data: Sequence[str]) -> list[RankRow]:
    """Return the ranking by the headline score on the test, of one data set or by the mean over several.

    Each resample draws seeds with replacement, and of each the questions and clients, the same for all methods.
    """
    methods, sign = _comparable(found, data), _sign(found, data)
    if not methods or not sign:
        return []
    resamples = min(run.resamples for name in data for method in methods for run in found.runs(name, method).values())
    values_MR = np.mean([_resampled(found, name, methods, resamples) for name in data], axis=0)
    rivals = _rivals(found, data, methods)
    low_M, high_M = np.percentile(_places(sign * values_MR, rivals), [2.5, 97.5], axis=1)
    values = [mean_value(found, data, method) for method in methods]
    place_M = _places(sign * np.array([[value.value] for value in values]), rivals)[:, 0]
    label, score = _label(found, data)
    return [
        RankRow(label, method, score, value, Interval(float(place), float(low), float(high), value.n))
        for method, value, place, low, high in zip(methods, values, place_M, low_M, high_M, strict=True)
    ]


def mean_value(found: SuiteOutcome, data: Sequence[str], method: str, phase: Phase = "final") -> Interval:
    """Return the headline score of a method on the test, over the data sets and seeds, of which it has all."""
    value = estimate([found.runs(name, method) for name in data], TEST, *_headlines(found, data), phase=phase)
    if value is None:
        raise DataError(f"{method} on {', '.join(data)}: a run has no score.")
    return value


def _resampled(found: SuiteOutcome, data: str, methods: Sequence[str], resamples: int) -> Array:
    """Return the means [M, R] of the methods on a data set, over resamples of seeds and questions.

    Questions that all seeds ask are drawn once for all of them: another seed's answer to one is no other question.
    """
    score = found.suite.headline(data)
    runs = [[found.runs(data, method)[seed].part(TEST) for method in methods] for seed in found.seeds]
    shared = len({each[0].asked("final") for each in runs}) == 1
    draws = [data if shared else f"{data} {seed}" for seed in found.seeds]
    values_SRM = np.stack(
        [
            resampled([run.table(score) for run in each], resamples=resamples, seed=draw)
            for each, draw in zip(runs, draws, strict=True)
        ]
    )
    drawn_RS = numpy_random("ranking", data).integers(len(found.seeds), size=(resamples, len(found.seeds)))
    return values_SRM[drawn_RS, np.arange(resamples)[:, None]].mean(axis=1).T


def _rivals(found: SuiteOutcome, data: Sequence[str], methods: Sequence[str]) -> list[bool]:
    """Return which of M methods leave the data where they are; all of them where none does."""
    runs = [[run for name in data for run in found.runs(name, method).values()] for method in methods]
    rivals = [not all(run.pooled for run in own) for own in runs]
    return rivals if any(rivals) else [True] * len(rivals)


def _places(values_MR: Array, rivals: Sequence[bool]) -> Array:
    """Return the place of each of M methods in each column, the largest value first; ties share their mean place.

    Places are counted among rivals; another method has none.
    """
    rivals_MR = values_MR[np.flatnonzero(rivals)]
    above = (rivals_MR[None] > values_MR[:, None]).sum(axis=1)
    alike = (rivals_MR[None] == values_MR[:, None]).sum(axis=1)
    return np.where(np.array(rivals)[:, None], 1 + above + (alike - 1) / 2, np.nan)


def pair_rows(found: SuiteOutcome, data: Sequence[str]) -> list[PairRow]:
    """Return all pairs of methods on the test, by the headline score, of one data set or by the mean over several."""
    methods, sign = _comparable(found, data), _sign(found, data)
    couples = list(itertools.combinations(methods, 2)) if sign else []
    gaps = [gap(found, data, first, second) for first, second in couples]
    p_values = [_p(repetitions(*_sides(found, data, *pair), TEST, _headlines(found, data))) for pair in couples]
    label, score = _label(found, data)
    return [
        PairRow(label, score, *pair, one, p, corrected, verdict(one, sign) if corrected < 0.05 else "undecided")
        for pair, one, p, corrected in zip(couples, gaps, p_values, holm(p_values), strict=True)
    ]


def gap(
    found: SuiteOutcome,
    data: Sequence[str],
    first: str,
    second: str,
    *,
    score: str = "",
    where: Choice = TEST,
    level: float = LEVEL,
) -> Interval:
    """Return the score of a method less that of another, or of its base, over seeds and as a mean over data sets.

    `score` left out is each data set's headline.
    """
    scores = [score] * len(data) if score else _headlines(found, data)
    phases = ("final", "base" if second == BASE else "final")
    try:
        return contrast(*_sides(found, data, first, second), where, *scores, phases=phases, level=level)
    except DataError as error:
        raise DataError(f"{first} less {second} on {', '.join(data)}: {error}") from error


def _sides(found: SuiteOutcome, data: Sequence[str], first: str, second: str) -> tuple[Runs, Runs]:
    """Return the runs of two methods; of a method and its base the same twice."""
    one = [found.runs(name, first) for name in data]
    return one, one if second == BASE else [found.runs(name, second) for name in data]


def _p(data: Sequence[Sequence[Repetition]]) -> float:
    """Return the p of a pair: over its seeds, and over all its questions, of which one that every seed asks is one."""
    tables: list[tuple[ScoreTable, ScoreTable]] = []
    for seeds in data:
        pairs = [(seed.one, seed.other) for seed in seeds if seed.other]
        alike = len({seed.questions for seed in seeds}) == 1
        tables += [(_stacked([one for one, _ in pairs]), _stacked([other for _, other in pairs]))] if alike else pairs
    return max(sign_flip(tables, resamples=_SWAPS), repeated_p(data) if len(data[0]) > 1 else 0.0)


def _stacked(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Return the models of several seeds as models that answer the same questions."""
    total_CN = np.concatenate([table.total_CN for table in tables])
    weight_CN = np.concatenate([table.weight_CN for table in tables])
    return replace(tables[0], total_CN=total_CN, weight_CN=weight_CN, owner_C=())
