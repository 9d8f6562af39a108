"""What a run directory says, as numbers and as tables: one run by itself, several side by side and in pairs."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedloom.base.errors import RunError
from fedloom.base.files import plain
from fedloom.base.mean import Mean
from fedloom.base.tables import Table
from fedloom.evaluation.difficulty import perplexity
from fedloom.evaluation.held_out import Scored
from fedloom.evaluation.repetitions import Repetition, mean_interval
from fedloom.evaluation.statistics import LEVEL, Interval, ScoreTable
from fedloom.results.kinds import configuration, kinds
from fedloom.results.outcome import Asked, Outcome, Selection, outcome
from fedloom.results.per_client import per_client, score_names
from fedloom.runs.accounts import spent_text

__all__ = [
    "Comparison",
    "Outcome",
    "as_json",
    "cell",
    "compare",
    "compare_record",
    "compare_table",
    "difference",
    "outcome",
    "over_seeds",
    "paired",
    "privacy_line",
    "repetition",
    "show_record",
    "show_table",
    "stage_lines",
]


@dataclass(frozen=True)
class _Row:
    """A score over a group of questions; None where nothing was scored."""

    questions: str
    score: str
    base: Interval | None
    final: Interval | None
    n: int


def _selections(scored: Sequence[Scored]) -> dict[str, Selection]:
    """Return the groups of questions to report: every set, and every domain in it where there are several."""
    groups: dict[str, Selection] = {}
    for name in dict.fromkeys(one.set for one in scored):
        groups[name] = Asked(name)
        domains = dict.fromkeys(one.tags["domain"] for one in scored if one.set == name and "domain" in one.tags)
        for domain in domains if len(domains) > 1 else ():
            groups[f"{name}/{domain}"] = Asked(name, (("domain", domain),))
    return groups


def _value(found: Outcome, chosen: Selection, score: str, phase: str) -> Interval | None:
    return over_seeds([found.part(chosen)], score, phase)


def _rows(found: Outcome) -> list[_Row]:
    scored = found.results.get("final") or found.results.get("base", ())
    rows: list[_Row] = []
    for group, chosen in _selections(scored).items():
        for score in score_names(scored):
            base, final = (_value(found, chosen, score, phase) for phase in ("base", "final"))
            told = final or base
            if told:
                rows.append(_Row(group, score, base, final, told.n))
            if told and score == "loss" and _is_per_token(found):
                rows.append(_Row(group, "perplexity", _perplexity(base), _perplexity(final), told.n))
    return [*rows, *_corpus_rows(found)]


def _corpus_rows(found: Outcome) -> list[_Row]:
    """Return the scores of many answers together, which have no interval: no mean over answers is such a score."""
    rows: list[_Row] = []
    for name, means in found.corpus.items():
        base, final = (_bare(means[phase]) if phase in means else None for phase in ("base", "final"))
        told = final or base
        if told:
            rows.append(_Row("test, all together", name, base, final, told.n))
    return rows


def _bare(mean: Mean) -> Interval:
    return Interval(mean.value, math.nan, math.nan, int(mean.weight))


def _is_per_token(found: Outcome) -> bool:
    """Return whether the loss of a run is that of a token, as of texts; that of a pair is not."""
    return found.settings.get("task", {}).get("name") == "sft"


def _perplexity(loss: Interval | None) -> Interval | None:
    """Return exp(loss), which keeps the order of an interval's ends; the error to first order."""
    if loss is None:
        return None
    value, low, high = (perplexity(Mean(end, 1.0)) for end in (loss.value, loss.low, loss.high))
    return Interval(value, low, high, loss.n, value * loss.standard_error, loss.effective_n)


def show_table(found: Outcome) -> Table:
    """Return base and final scores of one run with 95 % intervals over questions and clients.

    The effective n is the number of independent questions that would tell as much as the n that were asked. Rows `per
    client` tell how the clients fare: on their own held-out questions, and, where every client has a model of its own,
    with it on the common ones. `show_record` has every client's value.
    """
    rows = [
        (
            row.questions,
            row.score,
            cell(row.base),
            cell(row.final),
            _error(row.final),
            str(row.n),
            _effective(row.final),
        )
        for row in _rows(found)
    ]
    for per in per_client(found):
        told = f"mean {per.mean:.3f}, worst decile {per.worst_decile:.3f}"
        rows.append((f"per client ({per.questions})", per.score, "", told, "", str(len(per.values)), ""))
    header = ("questions", "score", "base", "final", "standard error", "n", "effective n")
    return Table(f"{found.label}, seed {found.seed}", header, tuple(rows))


def privacy_line(found: Outcome) -> str:
    """Return what was spent of the clients' privacy, in one line; empty where nothing protects it."""
    if not found.privacy:
        return ""
    card = found.privacy
    return (
        f"privacy, unit {card['unit']}: {spent_text(card)} at delta {card['delta']:.2g}, noise multiplier "
        f"{card['smallest_noise_multiplier']:.3f}, {card['uses']} uses; the worst client's; base model and held-out "
        "scores not covered" + ("; seeded noise, a simulation" if card["settings"].get("noise") == "seeded" else "")
    )


def stage_lines(found: Outcome) -> list[str]:
    """Return what was made of clients' examples before training and of the model after it, a line for each stage."""
    told: dict[tuple[str, int], dict[str, float]] = {}
    for one in found.card.get("prepared", ()):
        counts = told.setdefault((f"prepare {one['stage']}", one["at"]), {})
        for what, n in {"clients": 1, **one["counts"], "bytes sent": sum(one["sent"].values())}.items():
            counts[what] = counts.get(what, 0) + n
    for name, total in found.refined.items():
        stage, _, what = name.partition("/")
        told.setdefault((f"refine {stage}", 0), {})[what] = total
    return [
        f"{stage}: " + ", ".join(f"{n:,g} {what}" for what, n in counts.items()) for (stage, _), counts in told.items()
    ]


def show_record(found: Outcome) -> dict[str, Any]:
    """Return one run as JSON values: the rows of `show_table` as numbers, and every client's own score.

    Intervals are `{"value", "low", "high", "standard_error", "effective_n"}`; null stands for what was not scored.
    """
    rows = [vars(row) | {"base": as_json(row.base), "final": as_json(row.final)} for row in _rows(found)]
    clients = [
        {"questions": per.questions, "score": per.score, "values": dict(per.values)}
        | {"mean": per.mean, "worst_decile": per.worst_decile}
        for per in per_client(found)
    ]
    head = {"label": found.label, "seed": found.seed, "complete": found.complete, "cost": dict(found.cost)}
    head |= {"privacy": dict(found.privacy)} if found.privacy else {}
    return head | {"rows": rows, "clients": clients}


def cell(interval: Interval | None, spec: str = ".3f") -> str:
    """Return an interval as text; nothing of None, the value alone where it has no ends."""
    if interval and math.isnan(interval.low):
        return f"{interval.value:{spec}}"
    return f"{interval:{spec}}" if interval else ""


def _error(interval: Interval | None) -> str:
    return f"{interval.standard_error:.3f}" if interval and math.isfinite(interval.standard_error) else ""


def _effective(interval: Interval | None) -> str:
    return f"{interval.effective_n:.0f}" if interval and math.isfinite(interval.effective_n) else ""


def as_json(interval: Interval | None) -> dict[str, float | None] | None:
    """Return an interval as JSON values, null where it has none."""
    return interval and {name: value for name, value in plain(interval).items() if name != "n"}


@dataclass(frozen=True)
class _Side:
    """One score of several kinds of run."""

    questions: str
    score: str
    base: Interval | None
    values: Mapping[str, Interval | None]


@dataclass(frozen=True)
class _Pair:
    """One score of a kind of run less that of another."""

    questions: str
    score: str
    first: str
    second: str
    difference: Interval


@dataclass(frozen=True)
class Comparison:
    """Several kinds of run, each with one or more seeds."""

    groups: Mapping[str, Mapping[int, Outcome]]

    @property
    def labels(self) -> list[str]:
        """The kinds, in the order given."""
        return list(self.groups)

    def pairs(self, first: str, second: str) -> list[tuple[Outcome, Outcome]]:
        """Return the runs of two kinds that share a seed."""
        others = self.groups[second]
        return [(found, others[seed]) for seed, found in self.groups[first].items() if seed in others]


def compare(outcomes: Sequence[Outcome]) -> Comparison:
    """Return runs grouped by configuration: those that differ in nothing but seeds are seeds of one kind.

    A kind is called by its method, and where several have one method, by the keys in which these differ besides.
    Unfinished runs, ones without scores and two of a kind and seed are refused.
    """
    groups: dict[str, dict[int, Outcome]] = {}
    for found in outcomes:
        _refuse_incomparable(found)
        seeds = groups.setdefault(json.dumps(configuration(found), sort_keys=True), {})
        if found.seed in seeds:
            raise RunError(
                f"{found.path}: another '{found.label}' run of seed {found.seed} is {seeds[found.seed].path}."
            )
        seeds[found.seed] = found
    names = kinds([next(iter(seeds.values())) for seeds in groups.values()])
    return Comparison(dict(zip(names, groups.values(), strict=True)))


def _refuse_incomparable(found: Outcome) -> None:
    if not found.complete:
        raise RunError(f"{found.path}: the run is not complete; `fedloom resume {found.path}` first.")
    if "final" not in found.results:
        raise RunError(
            f"{found.path}: the run has no held-out examples, so it has no scores; set evaluation.holdout above 0 "
            "or give the data a test file, and run it anew."
        )


def difference(
    pairs: Sequence[tuple[Outcome, Outcome]],
    score: str,
    *,
    phases: tuple[str, str] = ("final", "final"),
    level: float = LEVEL,
) -> Interval:
    """Return the mean score of the first runs less that of the second; `phases` says which scores of either.

    Of some questions alone: take the runs' parts. The interval is that of `mean_interval` over the pairs, the seeds.
    Refused: pairs that were asked different questions, or whose models are those of different clients.
    """
    seeds = [repetition(*pair, score, phases) for pair in pairs]
    return mean_interval([seeds], resamples=pairs[0][0].resamples, level=level)


def repetition(
    one: Outcome, other: Outcome | None, score: str, phases: tuple[str, str] = ("final", "final")
) -> Repetition:
    """Return a score of a run, or its difference to another, as one of several seeds."""
    tables = paired(one, other, score, phases) if other else (one.table(score, phases[0]), None)
    # A score that some examples lack is over other questions in another seed.
    return Repetition(*tables, questions=(one.asked(phases[0]), len(tables[0].client_N)), data=one.data_id)


def over_seeds(runs: Sequence[Outcome], score: str, phase: str = "final") -> Interval | None:
    """Return the value of a score over runs that differ in their seeds; None where one of them has none."""
    if not runs or any(math.isnan(run.table(score, phase).value) for run in runs):
        return None
    return mean_interval([[repetition(run, None, score, (phase, phase)) for run in runs]], resamples=runs[0].resamples)


def paired(
    one: Outcome, other: Outcome, score: str, phases: tuple[str, str] = ("final", "final")
) -> tuple[ScoreTable, ScoreTable]:
    """Return the scores of two runs on the same questions, as `difference` takes them."""
    if one.questions(phases[0]) != other.questions(phases[1]):
        raise RunError(f"{one.path} and {other.path} were asked different questions: their scores cannot be paired.")
    tables = one.table(score, phases[0]), other.table(score, phases[1])
    owners = [table.owner_C for table in tables]
    shares = [found.card.get("data_sha256", found.path) for found in (one, other)]
    # Of the same data, models of clusters and of clients may be told apart; else their clients are others.
    if all(len(names) > 1 for names in owners) and owners[0] != owners[1] and shares[0] != shares[1]:
        raise RunError(f"{one.path} and {other.path} have models of different clients: their scores cannot be paired.")
    return tables


def _compared(compared: Comparison) -> tuple[list[_Side], list[_Pair]]:
    """Return the scores that any kind has, and the differences of the first kind to each other one that has them."""
    runs = [found for seeds in compared.groups.values() for found in seeds.values()]
    final = [one for found in runs for one in found.results["final"]]
    sides: list[_Side] = []
    pairs: list[_Pair] = []
    for group, chosen in _selections(final).items():
        for score in score_names(final):
            parts = {label: [run.part(chosen) for run in seeds.values()] for label, seeds in compared.groups.items()}
            values = {label: over_seeds(runs, score) for label, runs in parts.items()}
            if any(values.values()):
                base = over_seeds(parts[compared.labels[0]], score, "base")
                sides.append(_Side(group, score, base, values))
                pairs += _pairs(compared, group, chosen, [label for label in values if values[label]], score)
    return sides, pairs


def _pairs(compared: Comparison, group: str, chosen: Selection, having: Sequence[str], score: str) -> list[_Pair]:
    first, *others = compared.labels
    matched = {other: compared.pairs(first, other) for other in others if first in having and other in having}
    parts = {other: [(one.part(chosen), two.part(chosen)) for one, two in pairs] for other, pairs in matched.items()}
    return [_Pair(group, score, first, other, difference(pairs, score)) for other, pairs in parts.items() if pairs]


def compare_table(compared: Comparison) -> list[Table]:
    """Return the scores of all kinds side by side, and each kind's paired difference to the first.

    One seed: bootstrap intervals over questions and clients. Several: intervals over seeds and what they share.
    """
    sides, pairs = _compared(compared)
    labels = [f"{label} ({_seeds(seeds)})" for label, seeds in compared.groups.items()]
    rows = [(side.questions, side.score, cell(side.base), *map(cell, side.values.values())) for side in sides]
    tables = [Table("Scores with 95 % intervals", ("questions", "score", "base", *labels), tuple(rows))]
    if pairs:
        cells = [(p.questions, p.score, f"{p.first} - {p.second}", cell(p.difference, "+.3f")) for p in pairs]
        header = ("questions", "score", "pair", "difference")
        tables.append(Table("Paired differences with 95 % intervals", header, tuple(cells)))
    return tables


def compare_record(compared: Comparison) -> dict[str, Any]:
    """Return `compare_table` as JSON values, intervals as those of `show_record`."""
    sides, pairs = _compared(compared)
    rows = [
        vars(side)
        | {"base": as_json(side.base), "values": {name: as_json(value) for name, value in side.values.items()}}
        for side in sides
    ]
    differences = [
        {"questions": pair.questions, "score": pair.score, "first": pair.first, "second": pair.second}
        | (as_json(pair.difference) or {})
        for pair in pairs
    ]
    return {
        "runs": {label: list(seeds) for label, seeds in compared.groups.items()},
        "rows": rows,
        "differences": differences,
    }


def _seeds(seeds: Mapping[int, Outcome]) -> str:
    return f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {next(iter(seeds))}"
