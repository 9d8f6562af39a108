"""What a suite says: scores, rankings, pairs, clients, languages and domains, all with intervals."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedloom.base.errors import DataError, RunError
from fedloom.base.files import plain
from fedloom.base.rng import numpy_random
from fedloom.benchmark.ranking import PairRow, RankRow, pair_rows, rank_rows
from fedloom.benchmark.suite import BASE, SuiteOutcome
from fedloom.evaluation.repetitions import student_interval
from fedloom.evaluation.statistics import Array, Interval, drawn_interval
from fedloom.results.knowledge import FACTS, facts_told, of_facts
from fedloom.results.outcome import Asked, Outcome
from fedloom.results.per_client import direction, models_of_clients, per_client
from fedloom.results.show import over_seeds
from fedloom.runs.arrangements.clustered import Clustered, most_frequent
from fedloom.runs.tuning import arrangement_of

__all__ = [
    "ClientRow",
    "GroupRow",
    "ScoreRow",
    "Summary",
    "client_rows",
    "domain_rows",
    "fact_rows",
    "fairness",
    "language_rows",
    "languages_of_models",
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
class GroupRow:
    """A score by the group of the question, of one kind of model."""

    data: str
    method: str
    models: str
    """Whose models answer: "all", or those of one cluster or of the clients of one language."""
    group: str
    """The language or the domain of the questions."""
    score: str
    value: Interval
    n_questions: int


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
    languages: tuple[GroupRow, ...]
    domains: tuple[GroupRow, ...]
    facts: tuple[GroupRow, ...]
    """By whose facts are asked for: those a client's own records are about, others', all."""
    missing: tuple[str, ...]
    """Cells that have not ended."""

    def record(self) -> dict[str, Any]:
        """Return all of it as JSON values; null stands for what is no finite number."""
        return plain(self)


def summarise(found: SuiteOutcome) -> Summary:
    """Return the summary of the finished cells; a run without held-out examples or the headline score is refused."""
    for run in found.cells.values():
        if "final" not in run.results:
            raise RunError(
                f"{run.path}: the run has no held-out examples, so it has no scores; set evaluation.holdout."
            )
    _refuse_unknown_headline(found)
    parts = [(data,) for data in found.data]
    whole = [found.data] if len(found.data) > 1 else []
    return Summary(
        title=found.title,
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


def _methods(found: SuiteOutcome) -> Iterator[tuple[str, str, list[Outcome]]]:
    for data, method in itertools.product(found.data, found.methods):
        runs = list(found.runs(data, method).values())
        if runs:
            yield data, method, runs


def score_rows(found: SuiteOutcome) -> Iterator[ScoreRow]:
    """Yield every score of every method on every set, with what it rests on."""
    for data, method, runs in _methods(found):
        for questions in dict.fromkeys(one.set for run in runs for one in run.results["final"]):
            chosen = Asked(questions)
            parts = [run.part(chosen) for run in runs]
            final = [one for part in parts for one in part.results["final"]]
            for score in dict.fromkeys(name for one in final for name in one.scores):
                value = over_seeds(parts, score)
                if value:
                    yield ScoreRow(
                        data=data,
                        method=method,
                        questions=questions,
                        score=score,
                        base=over_seeds(parts, score, "base"),
                        final=value,
                        n_questions=len(parts[0].questions("final")),
                        seeds=tuple(run.seed for run in runs),
                        base_ids=tuple(dict.fromkeys(str(run.card.get("base_id", "")) for run in runs)),
                        data_sha256=tuple(str(run.card.get("data_sha256", "")) for run in runs),
                    )


def client_rows(found: SuiteOutcome) -> Iterator[ClientRow]:
    """Yield how the clients fare by the headline score and the loss, on their own questions and on common ones."""
    for data, method, runs in _methods(found):
        told = {run.seed: {(one.questions, one.score): one.values for one in per_client(run)} for run in runs}
        for questions, score in next(iter(told.values())):
            clients = {seed: rows[questions, score] for seed, rows in told.items() if (questions, score) in rows}
            if score in (found.suite.headline(data), "loss") and len(clients) == len(runs):
                values = [list(each.values()) for each in clients.values()]
                alike = len({run.data_id for run in runs}) == 1
                measures = _measures(values, direction(score) or 1, runs[0].resamples, alike=alike)
                yield ClientRow(data, method, questions, score, clients, measures)


def fairness(values_RN: Array, sign: int) -> dict[str, Array]:
    """Return, of the scores of N clients, what they tell of fairness, each [R]; `sign` is -1 where less is better.

    Mean; 10th percentile; means of the worst and of the best decile and the worst client; gap, the best decile less the
    worst; standard deviation over clients.
    """
    sorted_RN = np.sort(sign * values_RN, axis=1)
    count = max(1, math.ceil(0.1 * sorted_RN.shape[1]))
    worst_R, best_R = sorted_RN[:, :count].mean(axis=1), sorted_RN[:, -count:].mean(axis=1)
    return {
        "mean": values_RN.mean(axis=1),
        "tenth_percentile": sign * np.percentile(sorted_RN, 10, axis=1),
        "worst_decile": sign * worst_R,
        "best_decile": sign * best_R,
        "worst_client": sign * sorted_RN[:, 0],
        "gap": best_R - worst_R,
        "deviation": values_RN.std(axis=1),
    }


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
        shared = {name: [(float(drawn_R.var(ddof=1)), max(1, n - 1))] for name, drawn_R in drawn.items() if name not in _LAST}
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


def languages_of_models(run: Outcome, tag: str) -> dict[str, frozenset[str]]:
    """Return, by a model's owner, the most frequent value of a tag for each of its clients; "" owns what all share."""
    spoken = most_frequent(run.card, tag)
    return {
        owner: frozenset(spoken[client] for client in clients if client in spoken)
        for owner, clients in models_of_clients(run).items()
    }


def language_rows(found: SuiteOutcome) -> Iterator[GroupRow]:
    """Yield the headline score by the language of the question and by whose models answer, on the common test."""
    for data, method, runs in _methods(found):
        languages = _values(runs, "language")
        labels = [_called(run) for run in runs] if languages else []
        for label in dict.fromkeys(labels[0].values()) if labels else ():
            told = [
                _only(run, {owner for owner, name in called.items() if name == label})
                for run, called in zip(runs, labels, strict=True)
            ]
            for language in languages:
                yield from _group_row(found, (data, method, label), told, "language", language)


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


def _only(run: Outcome, owners: set[str]) -> Outcome:
    return replace(run, results={"final": tuple(one for one in run.results["final"] if one.owner in owners)})


def _values(runs: Sequence[Outcome], tag: str) -> list[str]:
    """Return the values of a tag in the common test, if there are several."""
    tagged = [one for one in runs[0].results["final"] if one.set == "test" and tag in one.tags]
    values = list(dict.fromkeys(one.tags[tag] for one in tagged))
    return values if len(values) > 1 else []


def domain_rows(found: SuiteOutcome) -> Iterator[GroupRow]:
    """Yield the headline score by the domain of the question, on the common test."""
    for data, method, runs in _methods(found):
        for domain in _values(runs, "domain"):
            yield from _group_row(found, (data, method, "all"), runs, "domain", domain)


def fact_rows(found: SuiteOutcome) -> Iterator[GroupRow]:
    """Yield the headline score by whose facts are asked for, before training and of each method."""
    for data in found.data:
        runs = {method: list(found.runs(data, method).values()) for method in found.methods}
        told = {method: each for method, each in runs.items() if each and facts_told(each)}
        score = found.suite.headline(data)
        for method, phase in [(BASE, "base")] * bool(told) + [(method, "final") for method in told]:
            for name in FACTS:
                parts = of_facts(told.get(method) or next(iter(told.values())), name)
                interval = over_seeds(parts, score, phase)
                if interval:
                    count = len(parts[0].questions(phase))
                    yield GroupRow(data, method, "each client's", name, score, interval, count)


def _group_row(
    found: SuiteOutcome, names: tuple[str, str, str], runs: Sequence[Outcome], tag: str, value: str
) -> Iterator[GroupRow]:
    data, method, models = names
    chosen, score = Asked("test", ((tag, value),)), found.suite.headline(data)
    parts = [run.part(chosen) for run in runs]
    interval = over_seeds(parts, score)
    if interval:
        count = len(parts[0].questions("final"))
        yield GroupRow(data, method, models, value, score, interval, count)
