"""What run directories say, as numbers and as tables: one run by itself, several side by side and in pairs."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedloom.base.config import differing_keys, value_at
from fedloom.base.errors import RunError
from fedloom.base.mean import Mean
from fedloom.base.tables import Table
from fedloom.evaluation.difficulty import perplexity
from fedloom.evaluation.held_out import Scored
from fedloom.evaluation.statistics import Interval
from fedloom.results.estimates import Estimate, Where, contrast, estimate
from fedloom.results.outcome import Outcome, outcome
from fedloom.results.per_client import PerClient, per_client, score_names
from fedloom.runs.accounts import spent_text

__all__ = [
    "Comparison",
    "Outcome",
    "as_json",
    "card_scores",
    "cell",
    "compare",
    "compare_record",
    "compare_table",
    "outcome",
    "pool_line",
    "privacy_line",
    "show_record",
    "show_table",
    "stage_lines",
    "stages",
    "without_seeds",
]

Groups = Mapping[str, Mapping[int, Outcome]]
"""Runs by kind and seed."""

Cells = dict[tuple[str, str], dict[str, Interval | None]]
"""Scores by questions and score, and by who was asked: `base`, and each kind of run; None where nothing was scored."""


def _sets(scored: Sequence[Scored]) -> list[str]:
    """Return the sets of questions; without a test of its own a run is tested by what clients hold out: told once."""
    asked: dict[str, list[tuple[Any, ...]]] = {}
    for one in scored:
        scores = sorted((name, mean.total, mean.weight) for name, mean in one.scores.items())
        asked.setdefault(one.set, []).append((one.owner, one.tags.get("client", ""), scores))
    test, held_out = (sorted(asked.get(name, ())) for name in ("test", "validation"))
    return [name for name in asked if name != "validation" or test != held_out]


def _places(scored: Sequence[Scored]) -> dict[str, Where]:
    """Return the groups of questions to report: every set, and every domain in it where there are several."""
    groups: dict[str, Where] = {}
    for name in _sets(scored):
        groups[name] = Where(name)
        domains = dict.fromkeys(one.tags["domain"] for one in scored if one.set == name and "domain" in one.tags)
        for domain in domains if len(domains) > 1 else ():
            groups[f"{name}/{domain}"] = Where(name, (("domain", domain),))
    return groups


def _cells(groups: Groups, wheres: Mapping[str, Where], scores: Sequence[str]) -> Cells:
    """Return the scores of the model before training, which is that of the first kind, and of all kinds."""
    first = next(iter(groups.values()))
    return {
        (name, score): {"base": estimate([first], where, score, phase="base")}
        | {label: estimate([seeds], where, score) for label, seeds in groups.items()}
        for name, where in wheres.items()
        for score in scores
    }


# ------------------------------------------------------------------------------------------------------------- one run


def _shown(found: Outcome) -> Cells:
    """Return the scores of a run, perplexities beside losses of a token, and those of many answers together."""
    scored = found.results.get("final") or found.results.get("base", ())
    per_token = found.settings.get("task", {}).get("name") == "sft"  # a loss of a pair is no loss of a token
    shown: Cells = {}
    places = _places(scored)
    for (place, score), cells in _cells({"final": {found.seed: found}}, places, score_names(scored)).items():
        row = _with_tuned(found, places[place], score, cells)
        shown[place, score] = row
        if score == "loss" and per_token:
            shown[place, "perplexity"] = {phase: _perplexity(loss) for phase, loss in row.items()}
    for name, means in found.corpus.items():
        # No mean over answers is such a score, so it has no interval.
        row = {phase: Interval(one.value, math.nan, math.nan, int(one.weight)) for phase, one in means.items()}
        shown["test, all together", name] = {phase: row.get(phase) for phase in _phases(found)}
    return {key: row for key, row in shown.items() if any(row.values())}


def _phases(found: Outcome) -> dict[str, str]:
    """Return when the run was scored, with the words for it."""
    words = {"base": "base", "tuned": "before refining", "final": "final"}
    return {phase: word for phase, word in words.items() if phase != "tuned" or phase in found.results}


def _with_tuned(
    found: Outcome, where: Where, score: str, row: dict[str, Interval | None]
) -> dict[str, Interval | None]:
    tuned = estimate([{found.seed: found}], where, score, phase="tuned") if "tuned" in found.results else None
    return {phase: row.get(phase, tuned) for phase in _phases(found)}


def _perplexity(loss: Interval | None) -> Interval | None:
    """Return exp(loss), which keeps the order of an interval's ends; the error to first order."""
    if loss is None:
        return None
    value, low, high = (perplexity(Mean(end, 1.0)) for end in (loss.value, loss.low, loss.high))
    return replace(loss, value=value, low=low, high=high, standard_error=value * loss.standard_error)


def _n(row: Mapping[str, Interval | None]) -> int:
    return next(one.n for one in (row["final"], row["base"]) if one)


def show_table(found: Outcome) -> Table:
    """Return base and final scores of one run with 95 % intervals over questions and clients.

    The effective n (`eff. n`) is the number of independent questions that would tell as much as the n that were asked.
    Rows `per client` tell how the clients fare: on their own held-out questions, and, where every client has a model
    of its own, with it on the common ones. `show_record` has every client's value.
    """
    rows: list[tuple[str, ...]] = []
    for key, row in _shown(found).items():
        final = row["final"] or Interval(math.nan, math.nan, math.nan, 0)
        rounded = (_finite(final.standard_error, ".3f"), str(_n(row)), _finite(final.effective_n, ".0f"))
        rows.append((*key, *map(cell, row.values()), *rounded))
    for per in _of_clients(found):
        told = "mean {mean:.3f}, worst decile {worst_decile:.3f}".format_map(per.fairness)
        blank = [""] * (len(_phases(found)) - 1)
        rows.append((f"per client ({per.questions})", per.score, *blank, told, "", str(len(per.values)), ""))
    header = ("questions", "score", *_phases(found).values(), "std. error", "n", "eff. n")
    return Table(f"{found.label}, seed {found.seed}", header, tuple(rows))


def _of_clients(found: Outcome) -> list[PerClient]:
    sets = _sets(found.results.get("final", ()))
    return [one for one in per_client(found) if one.questions.partition(",")[0] in sets]


def show_record(found: Outcome) -> dict[str, Any]:
    """Return one run as JSON values: the rows of `show_table` as numbers, and every client's own score.

    Intervals are `{"value", "low", "high", "standard_error", "effective_n"}`; null stands for what was not scored.
    """
    rows = [
        {"questions": place, "score": score, **{phase: as_json(one) for phase, one in row.items()}, "n": _n(row)}
        for (place, score), row in _shown(found).items()
    ]
    clients = [
        {"questions": per.questions, "score": per.score, "values": dict(per.values)}
        | {name: per.fairness[name] for name in ("mean", "worst_decile")}
        for per in _of_clients(found)
    ]
    head = {"label": found.label, "seed": found.seed, "complete": found.complete, "cost": dict(found.cost)}
    head |= {"privacy": dict(found.privacy)} if found.privacy else {}
    return head | {"rows": rows, "clients": clients}


def card_scores(found: Outcome) -> list[tuple[str, str, str, str]]:
    """Return the scores of a complete run for a model card: questions, score, before training and after."""
    told = [*_shown(found).items()] if found.complete else []
    if found.privacy:  # what clients hold out is covered by nothing: a card is for everybody
        owned = {"validation"} | {one.set for one in found.results.get("final", ()) if "client" in one.tags}
        told = [(key, row) for key, row in told if key[0].partition(",")[0].partition("/")[0] not in owned]
    return [(place, score, cell(row["base"]), cell(row["final"])) for (place, score), row in told if row["final"]]


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
    return [f"{stage}: {text}" for stage, text in stages(found)]


def stages(found: Outcome) -> list[tuple[str, str]]:
    """Return each stage with what was made and dropped, and each pool of public examples that one shows."""
    told: dict[tuple[str, int], dict[str, float]] = {}
    for one in found.card.get("prepared", ()):
        counts = told.setdefault((f"prepare {one['stage']}", one["at"]), {})
        for what, n in {"clients": 1, **one["counts"], "bytes sent": sum(one["sent"].values())}.items():
            counts[what] = counts.get(what, 0) + n
    for name, total in found.refined.items():
        stage, _, what = name.partition("/")
        told.setdefault((f"refine {stage}", 0), {})[what] = total
    shown = [(f"prepare {one['stage']}", pool_line(one)) for one in found.card.get("pools", ())]
    return shown + [
        (stage, ", ".join(f"{n:,g} {what}" for what, n in counts.items())) for (stage, _), counts in told.items()
    ]


def pool_line(card: Mapping[str, Any]) -> str:
    """Return the card of a pool of public examples in a line: size, domains, origin, what it cost, hash."""
    minutes = "not told" if card["minutes"] is None else f"{card['minutes']:g}"
    return (
        f"shows {card['rows']:,} public examples; domains {_counted(card['domains'])}; origins "
        f"{_counted(card['origins'])}; minutes of work {minutes}; {card['sha256']}"
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def cell(interval: Interval | None, spec: str = ".3f") -> str:
    """Return an interval as text; nothing of None, the value alone where it has no ends.

    Thousands are written without decimals.
    """
    if interval and abs(interval.value) >= 1000 and spec == ".3f":
        spec = ",.0f"
    if interval and math.isnan(interval.low):
        return f"{interval.value:{spec}}"
    return f"{interval:{spec}}" if interval else ""


def _finite(number: float, spec: str) -> str:
    return f"{number:{spec}}" if math.isfinite(number) else ""


def as_json(interval: Interval | None) -> dict[str, float | None] | None:
    """Return an interval as JSON values, null where it has none."""
    return interval and interval.record("value", "low", "high", "standard_error", "effective_n")


# ---------------------------------------------------------------------------------------------------------- several


@dataclass(frozen=True)
class Comparison:
    """Several kinds of run, each with one or more seeds."""

    groups: Groups

    @property
    def labels(self) -> list[str]:
        """The kinds, in the order given."""
        return list(self.groups)

    def shares_seeds(self, first: str, second: str) -> bool:
        """Return whether two kinds have runs to be paired."""
        return bool(self.groups[first].keys() & self.groups[second].keys())


def compare(outcomes: Sequence[Outcome]) -> Comparison:
    """Return runs grouped by configuration: those that differ in nothing but seeds are seeds of one kind.

    A kind is called by its method, and where several have one method, by the keys in which these differ besides.
    Unfinished runs, ones without scores and two of a kind and seed are refused.
    """
    groups: dict[str, dict[int, Outcome]] = {}
    for found in outcomes:
        _refuse_incomparable(found)
        seeds = groups.setdefault(json.dumps(_configuration(found), sort_keys=True), {})
        if found.seed in seeds:
            raise RunError(
                f"{found.path}: another '{found.label}' run of seed {found.seed} is {seeds[found.seed].path}."
            )
        seeds[found.seed] = found
    names = _kinds([next(iter(seeds.values())) for seeds in groups.values()])
    return Comparison(dict(zip(names, groups.values(), strict=True)))


def _configuration(found: Outcome) -> dict[str, Any]:
    """Return what makes two runs one kind: method, settings without seeds, base weights, and how many examples.

    The number is left out where a seed draws the data.
    """
    drawn = "seed" in found.settings.get("data", {})
    examples = {} if drawn else {"examples": found.card.get("n_examples", 0)}
    base = {"base": found.card.get("base_id", "")}
    return {"method": found.label, **base, **examples, **without_seeds(found.settings)}


def without_seeds(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table of settings without the seeds in it."""
    kept = {key: value for key, value in table.items() if key != "seed"}
    return {key: without_seeds(value) if isinstance(value, Mapping) else value for key, value in kept.items()}


def _kinds(first: Sequence[Outcome]) -> list[str]:
    """Return what each kind is called, by one run of each."""
    tables = [_configuration(found) for found in first]
    names: list[str] = []
    for found, table in zip(first, tables, strict=True):
        alike = [other for other in tables if other["method"] == found.label]
        keys = dict.fromkeys(key for other in alike for key in differing_keys(table, other))
        told = [f"{key}={value_at(table, key)}" for key in keys]
        names.append(" ".join([found.label, *told]))
    return names


def _refuse_incomparable(found: Outcome) -> None:
    if not found.complete:
        raise RunError(f"{found.path}: the run is not complete; `fedloom resume {found.path}` first.")
    if "final" not in found.results:
        raise RunError(
            f"{found.path}: the run has no held-out examples, so it has no scores; set evaluation.holdout above 0 "
            "or give the data a test file, and run it anew."
        )


def _compared(compared: Comparison) -> tuple[Cells, list[Estimate]]:
    """Return the scores that any kind has, and the differences of the first kind to each other one that has them."""
    final = [one for seeds in compared.groups.values() for run in seeds.values() for one in run.results["final"]]
    wheres, (first, *others) = _places(final), compared.labels
    cells = _cells(compared.groups, wheres, score_names(final))
    cells = {key: row for key, row in cells.items() if any(row[label] for label in compared.labels)}
    pairs = [
        Estimate(
            {"questions": place, "score": score, "first": first, "second": other},
            contrast([compared.groups[first]], [compared.groups[other]], wheres[place], score),
        )
        for (place, score), row in cells.items()
        for other in others
        if row[first] and row[other] and compared.shares_seeds(first, other)
    ]
    return cells, pairs


def compare_table(compared: Comparison) -> list[Table]:
    """Return the scores of all kinds side by side, and each kind's paired difference to the first.

    One seed: bootstrap intervals over questions and clients. Several: intervals over seeds and what they share.
    """
    cells, pairs = _compared(compared)
    labels = [f"{label} ({_seeds(seeds)})" for label, seeds in compared.groups.items()]
    rows = tuple((*key, *map(cell, row.values())) for key, row in cells.items())
    tables = [Table("Scores with 95 % intervals", ("questions", "score", "base", *labels), rows)]
    if pairs:
        rows = tuple(
            (one["questions"], one["score"], f"{one['first']} - {one['second']}", cell(one.interval, "+.3f"))
            for one in pairs
        )
        header = ("questions", "score", "pair", "difference")
        tables.append(Table("Paired differences with 95 % intervals", header, rows))
    return tables


def compare_record(compared: Comparison) -> dict[str, Any]:
    """Return `compare_table` as JSON values, intervals as those of `show_record`."""
    cells, pairs = _compared(compared)
    rows: list[dict[str, Any]] = []
    for (place, score), row in cells.items():
        base, *values = map(as_json, row.values())
        told = dict(zip(compared.labels, values, strict=True))
        rows.append({"questions": place, "score": score, "base": base, "values": told})
    return {
        "runs": {label: list(seeds) for label, seeds in compared.groups.items()},
        "rows": rows,
        "differences": [{**one.labels, **(as_json(one.interval) or {})} for one in pairs],
    }


def _seeds(seeds: Mapping[int, Outcome]) -> str:
    return f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {next(iter(seeds))}"
