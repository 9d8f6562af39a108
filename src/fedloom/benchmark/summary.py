"""What a suite says: scores, rankings, pairs, clients, languages and domains, all with intervals."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedloom.base.errors import DataError, RunError
from fedloom.base.files import plain
from fedloom.base.rng import numpy_random
from fedloom.benchmark.ranking import PairRow, RankRow, pair_rows, rank_rows
from fedloom.benchmark.stated import BASE
from fedloom.benchmark.suite import SuiteOutcome
from fedloom.evaluation.repetitions import student_interval
from fedloom.evaluation.statistics import Array, Interval, drawn_interval
from fedloom.results.estimates import FACTS, TEST, Estimate, Phase, Where, estimate
from fedloom.results.knowledge import facts_told
from fedloom.results.outcome import Choice, Outcome
from fedloom.results.per_client import (
    direction,
    fairness,
    languages_of_models,
    models_of_clients,
    per_client,
    score_names,
)
from fedloom.runs.arrangements.clustered import Clustered
from fedloom.runs.tuning import arrangement_of

__all__ = [
    "ClientRow",
    "ScoreRow",
    "Summary",
    "client_rows",
    "domain_rows",
    "fact_rows",
    "language_rows",
    "score_rows",
    "summarise",
]


@dataclass(frozen=True)
class ScoreRow:
    """A score of a method on a set of questions, before and after training."""

    data: str
    method: str
    questions: str
    """`test` or `validation`; of the latter each model answers its own clients' part."""
    score: str
    base: Interval | None
    final: Interval
    n_questions: int
    seeds: tuple[int, ...]
    base_ids: tuple[str, ...]
    """Names and hashes of the base weights."""
    data_sha256: tuple[str, ...]
    """Hash of all examples of each seed."""


@dataclass(frozen=True)
class ClientRow:
    """How the clients fare under a method."""

    data: str
    method: str
    questions: str
    score: str
    clients: Mapping[int, Mapping[str, float]]
    """Every client's score by seed."""
    measures: Mapping[str, Interval]
    """What `fairness` names; over seeds, of one seed over clients."""


@dataclass(frozen=True)
class Summary:
    """All that is drawn and printed of a suite, its claims excepted."""

    title: str
    seeds: tuple[int, ...]
    headline: Mapping[str, str]
    """What the methods are ranked by on each data set."""
    scores: tuple[ScoreRow, ...]
    ranks: tuple[RankRow, ...]
    pairs: tuple[PairRow, ...]
    clients: tuple[ClientRow, ...]
    languages: tuple[Estimate, ...]
    """By data, method, models and group: the language of the question and whose models answer, one cluster's or those
    of the clients of one language."""
    domains: tuple[Estimate, ...]
    facts: tuple[Estimate, ...]
    """By whose facts are asked for: those a client's own records are about, others', all."""
    missing: tuple[str, ...]
    """Cells that have not ended."""
    absent_controls: tuple[str, ...]
    """A line for each control arm that no finished run is."""

    def record(self) -> dict[str, Any]:
        """Return all of it as JSON values; null stands for what is no finite number."""
        groups = {
            name: [one.record("value") for one in rows]
            for name, rows in (("languages", self.languages), ("domains", self.domains), ("facts", self.facts))
        }
        return plain(self) | plain(groups)


def summarise(found: SuiteOutcome) -> Summary:
    """Return the summary of the finished cells; a run without held-out examples or the headline score is refused."""
    for run in found.cells.values():
        if "final" not in run.results:
            raise RunError(
                f"{run.path}: the run has no held-out examples, so it has no scores; set evaluation.holdout."
            )
    _refuse_unknown_headline(found)
    parts = [(data,) for data in found.data]
    whole = [found.alike] if len(found.alike) > 1 else []
    return Summary(
        title=found.suite.title,
        seeds=found.seeds,
        headline={data: found.suite.headline(data) for data in found.data},
        scores=tuple(score_rows(found)),
        ranks=tuple(row for data in [*whole, *parts] for row in rank_rows(found, data)),
        pairs=tuple(row for data in [*whole, *parts] for row in pair_rows(found, data)),
        clients=tuple(client_rows(found)),
        languages=tuple(language_rows(found)),
        domains=tuple(domain_rows(found)),
        facts=tuple(fact_rows(found)),
        missing=tuple(f"{data}/{method}_s{seed}" for data, method, seed in found.missing),
        absent_controls=tuple(found.absent_controls()),
    )


def _refuse_unknown_headline(found: SuiteOutcome) -> None:
    """Refuse to rank by what no run tells, which would leave the tables empty without a word."""
    for data in found.data:
        cells = [run for key, run in found.cells.items() if key[0] == data]
        told = {name for run in cells for one in run.results["final"] if one.set == "test" for name in one.scores}
        score = found.suite.headline(data)
        if cells and score not in told:
            raise DataError(
                f"score: found '{score}', allowed on data set '{data}' are {', '.join(sorted(told))}; set score or "
                f"scores.{data}: finished cells stay as they are."
            )


def score_rows(found: SuiteOutcome) -> Iterator[ScoreRow]:
    """Yield every score of every method on every set, with what it rests on."""
    for data, method, seeds in found.kinds():
        runs = list(seeds.values())
        for questions in dict.fromkeys(one.set for run in runs for one in run.results["final"]):
            where = Where(questions)
            for score in score_names([one for run in runs for one in run.part(where).results["final"]]):
                final = estimate([seeds], where, score)
                if final:
                    yield ScoreRow(
                        data=data,
                        method=method,
                        questions=questions,
                        score=score,
                        base=estimate([seeds], where, score, phase="base"),
                        final=final,
                        n_questions=len(runs[0].part(where).questions("final")),
                        seeds=tuple(seeds),
                        base_ids=tuple(dict.fromkeys(str(run.card.get("base_id", "")) for run in runs)),
                        data_sha256=tuple(str(run.card.get("data_sha256", "")) for run in runs),
                    )


def client_rows(found: SuiteOutcome) -> Iterator[ClientRow]:
    """Yield how the clients fare by the headline score and the loss, on their own questions and on common ones."""
    for data, method, seeds in found.kinds():
        runs = list(seeds.values())
        told = {
            seed: {(one.questions, one.score): one.values for one in per_client(run)} for seed, run in seeds.items()
        }
        for questions, score in next(iter(told.values())):
            clients = {seed: rows[questions, score] for seed, rows in told.items() if (questions, score) in rows}
            if score in (found.suite.headline(data), "loss") and len(clients) == len(runs):
                values = [list(each.values()) for each in clients.values()]
                alike = len({run.data_id for run in runs}) == 1
                measures = _measures(values, direction(score) or 1, runs[0].resamples, alike=alike)
                yield ClientRow(data, method, questions, score, clients, measures)


def _measures(values: Sequence[Sequence[float]], sign: int, resamples: int, *, alike: bool) -> dict[str, Interval]:
    """Return `fairness` with intervals: of one seed over resampled clients, else over the seeds.

    Seeds whose clients are alike (`alike`) do not tell how other clients would fare: there, the variance over resamples
    of the same clients in all seeds adds to that over the seeds. No resample has a client beyond the last one: for what
    is about the last ones, the interval is over seeds alone, and of one seed there is none.
    """
    told = [{name: float(v[0]) for name, v in fairness(np.array([each]), sign).items()} for each in values]
    drawn = _drawn_measures(values, sign, resamples) if alike else {}
    n = len(values[0])
    if len(told) > 1:
        shared = {
            name: [(float(drawn_R.var(ddof=1)), max(1, n - 1))] for name, drawn_R in drawn.items() if name not in _LAST
        }
        return {name: student_interval([each[name] for each in told], shared=shared.get(name, ())) for name in told[0]}
    return {
        name: Interval(one, math.nan, math.nan, n) if name in _LAST else drawn_interval(one, drawn[name], n)
        for name, one in told[0].items()
    }


_LAST = ("worst_decile", "best_decile", "worst_client", "gap")


def _drawn_measures(values: Sequence[Sequence[float]], sign: int, resamples: int) -> dict[str, Array]:
    """Return the mean of the measures over the seeds, over resamples of the clients [R]."""
    n = len(values[0])
    drawn_RN = numpy_random("fairness").integers(n, size=(resamples, n))
    seeds = [fairness(np.array(each)[drawn_RN], sign) for each in values]
    return {name: np.mean([drawn[name] for drawn in seeds], axis=0) for name in seeds[0]}


def language_rows(found: SuiteOutcome) -> Iterator[Estimate]:
    """Yield the headline score by the language of the question and by whose models answer, on the common test."""
    for data, method, runs in found.kinds():
        languages = _values(runs, "language")
        called = {seed: _called(run) for seed, run in runs.items()} if languages else {}
        for models in dict.fromkeys(name for names in list(called.values())[:1] for name in names.values()):
            told = {seed: _only(run, models, called[seed]) for seed, run in runs.items()}
            for language in languages:
                where = Where("test", (("language", language),))
                yield from _group(found, (data, method, models, language), told, where)


def _called(run: Outcome) -> dict[str, str]:
    """Return what the models of a run are called in a matrix, by owner."""
    clients = models_of_clients(run)
    if not clients:
        return {"": "all"}
    if isinstance(arrangement_of(run.settings), Clustered):
        return {owner: owner for owner in clients}
    if "by_client" not in run.card["tags"].get("language", {}):
        return dict.fromkeys(clients, "clients")
    return {owner: ", ".join(sorted(spoken)) for owner, spoken in languages_of_models(run, "language").items()}


def _only(run: Outcome, models: str, called: Mapping[str, str]) -> Outcome:
    """Return the run with the models of that name alone."""
    return run.kept(lambda one: called.get(one.owner) == models)


def _values(runs: Mapping[int, Outcome], tag: str) -> list[str]:
    """Return the values of a tag in the common test, if there are several."""
    tagged = [one for one in next(iter(runs.values())).part(TEST).results["final"] if tag in one.tags]
    values = list(dict.fromkeys(one.tags[tag] for one in tagged))
    return values if len(values) > 1 else []


def domain_rows(found: SuiteOutcome) -> Iterator[Estimate]:
    """Yield the headline score by the domain of the question, on the common test."""
    for data, method, runs in found.kinds():
        for domain in _values(runs, "domain"):
            yield from _group(found, (data, method, "all", domain), runs, Where("test", (("domain", domain),)))


def fact_rows(found: SuiteOutcome) -> Iterator[Estimate]:
    """Yield the headline score by whose facts are asked for, before training and of each method."""
    begun: set[str] = set()
    for data, method, runs in found.kinds():
        told: Mapping[str, Phase] = {**({} if data in begun else {BASE: "base"}), method: "final"}
        for name, phase in told.items() if facts_told(runs.values()) else ():
            begun.add(data)
            for group, where in FACTS.items():
                yield from _group(found, (data, name, "each client's", group), runs, where, phase)


def _group(
    found: SuiteOutcome,
    names: tuple[str, str, str, str],
    runs: Mapping[int, Outcome],
    where: Choice,
    phase: Phase = "final",
) -> Iterator[Estimate]:
    """Yield the headline score of a group of questions, if they have it."""
    score = found.suite.headline(names[0])
    if interval := estimate([runs], where, score, phase=phase):
        count = len(next(iter(runs.values())).part(where).questions(phase))
        labels = dict(zip(("data", "method", "models", "group"), names, strict=True))
        yield Estimate(labels | {"score": score}, interval, count)
