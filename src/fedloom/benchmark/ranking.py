"""Methods against methods: values over seeds and data sets, rankings, paired differences and tests.

One seed: bootstrap intervals over questions and clients. Several: Student's intervals over the seeds, of which each is
a whole run. The test of a pair swaps the two methods' answers question by question and so covers the questions; the
interval covers the seeds: `better` needs both.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fedloom.base.errors import DataError
from fedloom.base.rng import numpy_random
from fedloom.benchmark.suite import BASE, SuiteOutcome
from fedloom.evaluation.repetitions import Repetition, mean_interval, repeated_p
from fedloom.evaluation.statistics import LEVEL, Array, Interval, ScoreTable, holm, resampled, sign_flip
from fedloom.results.outcome import Asked, Outcome
from fedloom.results.per_client import direction
from fedloom.results.show import paired, repetition

__all__ = [
    "ALL",
    "Chooser",
    "PairRow",
    "RankRow",
    "gap",
    "mean_value",
    "pair_rows",
    "rank_rows",
]

ALL = "(mean)"
"""Stands for the mean over the data sets, each counting alike."""

_SWAPS = 4_999

Verdict = Literal["better", "worse", "undecided"]
Chooser = Callable[[Outcome], Outcome]
"""Takes the part of a run that is compared: which questions to which models."""


@dataclass(frozen=True)
class PairRow:
    """A method less another on the same questions of the test, by the headline score."""

    data: str
    score: str
    first: str
    second: str
    difference: Interval
    p: float
    """Two-sided: by swapped answers, or of the interval over the seeds, whichever is larger."""
    corrected_p: float
    """Corrected for all pairs of the data set (Holm)."""
    verdict: Verdict
    """Whether the first is better: undecided where the interval contains 0 or the corrected p is 0.05 or more."""


@dataclass(frozen=True)
class RankRow:
    """Where a method stands, 1 being the best; ties share the mean of their places."""

    data: str
    method: str
    score: str
    value: Interval
    rank: Interval
    """Over resamples of the seeds and of the questions."""


_TEST = Asked("test")


def _comparable(found: SuiteOutcome, data: Sequence[str]) -> list[str]:
    """Return the methods whose every run on the data sets has ended and has the headline score."""

    def has(name: str, method: str) -> bool:
        runs = found.runs(name, method)
        score = found.suite.headline(name)
        return len(runs) == len(found.seeds) and all(
            not math.isnan(run.part(_TEST).table(score).value) for run in runs.values()
        )

    return [method for method in found.methods if all(has(name, method) for name in data)]


def _label(found: SuiteOutcome, data: Sequence[str]) -> tuple[str, str]:
    """Return data set and score of rows about one data set, or about the mean of several."""
    scores = list(dict.fromkeys(map(found.suite.headline, data)))
    return (data[0] if len(data) == 1 else ALL), " / ".join(scores)


def _sign(found: SuiteOutcome, data: Sequence[str]) -> int:
    """Return whether more or less of the headline scores is better; 0 where they do not agree."""
    signs = {direction(found.suite.headline(name)) for name in data}
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
    low_M, high_M = np.percentile(_places(sign * values_MR), [2.5, 97.5], axis=1)
    values = [mean_value(found, data, method) for method in methods]
    place_M = _places(sign * np.array([[value.value] for value in values]))[:, 0]
    label, score = _label(found, data)
    return [
        RankRow(label, method, score, value, Interval(float(place), float(low), float(high), value.n))
        for method, value, place, low, high in zip(methods, values, place_M, low_M, high_M, strict=True)
    ]


def mean_value(found: SuiteOutcome, data: Sequence[str], method: str, phase: str = "final") -> Interval:
    """Return the headline score of a method on the test, over the data sets and seeds."""
    runs = {name: [run.part(_TEST) for run in found.runs(name, method).values()] for name in data}
    seeds = [[repetition(run, None, found.suite.headline(name), (phase, phase)) for run in runs[name]] for name in data]
    return mean_interval(seeds, resamples=runs[data[0]][0].resamples)


def _resampled(found: SuiteOutcome, data: str, methods: Sequence[str], resamples: int) -> Array:
    """Return the means [M, R] of the methods on a data set, over resamples of seeds and questions.

    Questions that all seeds ask are drawn once for all of them: another seed's answer to one is no other question.
    """
    score = found.suite.headline(data)
    runs = [[found.runs(data, method)[seed].part(_TEST) for method in methods] for seed in found.seeds]
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


def _places(values_MR: Array) -> Array:
    """Return the place of each of M methods in each column, the largest value first; ties share their mean place."""
    above = (values_MR[None] > values_MR[:, None]).sum(axis=1)
    alike = (values_MR[None] == values_MR[:, None]).sum(axis=1)
    return 1 + above + (alike - 1) / 2


def pair_rows(found: SuiteOutcome, data: Sequence[str]) -> list[PairRow]:
    """Return all pairs of methods on the test, by the headline score, of one data set or by the mean over several."""
    methods, sign = _comparable(found, data), _sign(found, data)
    couples = list(itertools.combinations(methods, 2)) if sign else []
    paired_seeds = [_seeds(found, data, first, second) for first, second in couples]
    gaps = [mean_interval(seeds, resamples=_resamples(found, data)) for seeds in paired_seeds]
    p_values = [
        max(_swap_test(found, data, *couple), repeated_p(seeds) if len(found.seeds) > 1 else 0.0)
        for couple, seeds in zip(couples, paired_seeds, strict=True)
    ]
    label, score = _label(found, data)
    return [
        PairRow(label, score, first, second, difference, p, corrected, _verdict(difference, corrected, sign))
        for (first, second), difference, p, corrected in zip(couples, gaps, p_values, holm(p_values), strict=True)
    ]


def _verdict(difference: Interval, corrected_p: float, sign: int) -> Verdict:
    if corrected_p >= 0.05 or difference.low <= 0 <= difference.high:
        return "undecided"
    return "better" if sign * difference.value > 0 else "worse"


def _on_test(run: Outcome) -> Outcome:
    return run.part(_TEST)


def gap(
    found: SuiteOutcome,
    data: Sequence[str],
    first: str,
    second: str,
    *,
    score: str = "",
    choose: Chooser = _on_test,
    level: float = LEVEL,
) -> Interval:
    """Return the score of a method less that of another, or of its base, over seeds and as a mean over data sets.

    `score` left out is each data set's headline; `choose` is asked of each run by itself.
    """
    seeds = _seeds(found, data, first, second, score=score, choose=choose)
    if not seeds[0]:
        raise DataError(f"{first} less {second} on {', '.join(data)}: no seed has both.")
    try:
        return mean_interval(seeds, resamples=_resamples(found, data), level=level)
    except DataError as error:
        raise DataError(f"{first} less {second} on {', '.join(data)}: {error}") from error


def _resamples(found: SuiteOutcome, data: Sequence[str]) -> int:
    return next(run.resamples for (name, *_), run in found.cells.items() if name in data)


def _seeds(
    found: SuiteOutcome,
    data: Sequence[str],
    first: str,
    second: str,
    *,
    score: str = "",
    choose: Chooser = _on_test,
) -> list[list[Repetition]]:
    """Return the differences of two methods, or of one and its base, by data set and seed."""
    phases = ("final", "base" if second == BASE else "final")
    scores = [score or found.suite.headline(name) for name in data]
    pairs = [_pairs(found, name, first, second, choose) for name in data]
    seeds = [seed for seed in found.seeds if all(seed in each for each in pairs)]
    return [[repetition(*each[seed], name, phases) for seed in seeds] for each, name in zip(pairs, scores, strict=True)]


def _pairs(
    found: SuiteOutcome, data: str, first: str, second: str, choose: Chooser
) -> dict[int, tuple[Outcome, Outcome]]:
    """Return the chosen part of the runs of two methods by seed; of a method and its base the same run twice."""
    runs = {seed: choose(run) for seed, run in found.runs(data, first).items()}
    other = first if second == BASE else second
    others = {seed: choose(run) for seed, run in found.runs(data, other).items()}
    return {seed: (run, others[seed]) for seed, run in runs.items() if seed in others}


def _swap_test(found: SuiteOutcome, data: Sequence[str], first: str, second: str) -> float:
    """Return the p of a pair over all its questions; one that every seed asks again is swapped in all of them."""
    tables: list[tuple[ScoreTable, ScoreTable]] = []
    for name in data:
        score, pairs = found.suite.headline(name), list(_pairs(found, name, first, second, _on_test).values())
        seeds = [paired(*pair, score) for pair in pairs]
        alike = len({one.asked("final") for one, _ in pairs}) == 1
        tables += [(_stacked([one for one, _ in seeds]), _stacked([other for _, other in seeds]))] if alike else seeds
    return sign_flip(tables, resamples=_SWAPS)


def _stacked(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Return the models of several seeds as models that answer the same questions."""
    total_CN = np.concatenate([table.total_CN for table in tables])
    weight_CN = np.concatenate([table.weight_CN for table in tables])
    return replace(tables[0], total_CN=total_CN, weight_CN=weight_CN, owner_C=())
