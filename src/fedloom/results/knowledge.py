"""Who knows what: scores by whether a client's own records are about what is asked, or only those of others.

Training alone can teach a model what its own records tell; what others know only a federation, or pooling, can add. A
score over all questions mixes the two, and a fair comparison tells them apart.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fedloom.base.tables import Table
from fedloom.evaluation.statistics import Interval
from fedloom.results.estimates import FACTS, contrast, estimate
from fedloom.results.outcome import Outcome
from fedloom.results.per_client import score_names
from fedloom.results.show import Comparison, as_json, cell

__all__ = ["FACTS", "facts_told", "knowledge", "knowledge_record"]


def facts_told(runs: Iterable[Outcome]) -> bool:
    """Return whether all runs say what their clients' records are about."""
    return all("knows" in run.card for run in runs)


@dataclass(frozen=True)
class _Knowledge:
    """A score by whose facts a question asks for: of the base and of every kind, and the first kind less alone."""

    score: str
    values: Mapping[str, Mapping[str, Interval | None]]
    """By kind and column of `FACTS`."""
    against: str
    gains: Mapping[str, Interval]
    """What the first kind has more than `against`, training alone; without what is not compared or not asked."""


def _knowledge(compared: Comparison) -> _Knowledge | None:
    """Return who knows what; None where a run does not say what its clients know."""
    groups, (first, *others) = compared.groups, compared.labels
    runs = [run for seeds in groups.values() for run in seeds.values()]
    if not facts_told(runs):
        return None
    score = next((name for name in score_names(runs[0].results["final"]) if name != "loss"), "loss")
    values = {"base": {name: estimate([groups[first]], where, score, phase="base") for name, where in FACTS.items()}}
    for label, seeds in groups.items():
        values[label] = {name: estimate([seeds], where, score) for name, where in FACTS.items()}
    alone = (one for one in others if one.startswith("local_only") and compared.shares_seeds(first, one))
    against = next(alone, "")
    gains = {
        name: contrast([groups[first]], [groups[against]], where, score)
        for name, where in FACTS.items()
        if against and values[first][name] and values[against][name]
    }
    return _Knowledge(score, values, against, gains)


def knowledge(compared: Comparison) -> tuple[list[Table], list[str]]:
    """Return a small table of who knows what, and a sentence of what federation gives; nothing where runs do not say.

    A client's own facts are those that its training records are about, and a model that clients share counts once for
    each of them.
    """
    found = _knowledge(compared)
    if not found:
        return [], []
    rows = [(label, *map(cell, values.values())) for label, values in found.values.items()]
    table = Table(f"{found.score} by whose facts are asked for", ("model", *FACTS), tuple(rows))
    if len(found.gains) < len(FACTS):
        return [table], []
    own, others = (found.gains[name] for name in ("own facts", "others' facts"))
    sentence = (
        f"{compared.labels[0]} less {found.against}: {others:+.3f} on what only other clients know, {own:+.3f} on what "
        f"a client's own records tell{' (no difference shown)' * (own.low <= 0 <= own.high)}."
    )
    return [table], [sentence]


def knowledge_record(compared: Comparison) -> dict[str, Any] | None:
    """Return what `knowledge` says as JSON values; None where runs do not say."""
    found = _knowledge(compared)
    if found is None:
        return None
    values = {label: {name: as_json(one) for name, one in row.items()} for label, row in found.values.items()}
    gains = {name: as_json(one) for name, one in found.gains.items()}
    return {"score": found.score, "values": values, "against": found.against, "gains": gains}
