"""Who knows what: scores by whether a client's own records are about what is asked, or only those of others.

Training alone can teach a model what its own records tell; what others know only a federation, or pooling, can add. A
score over all questions mixes the two, and a fair comparison tells them apart.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fedloom.base.tables import Table
from fedloom.evaluation.statistics import Interval
from fedloom.results.outcome import Asked, Outcome
from fedloom.results.per_client import by_knowledge, score_names
from fedloom.results.show import Comparison, as_json, cell, difference, over_seeds

__all__ = ["FACTS", "facts_told", "knowledge", "knowledge_record", "of_facts"]

FACTS: Mapping[str, Literal["own", "others"] | None] = {"own facts": "own", "others' facts": "others", "all": None}
"""Whose facts a question of the test asks for, of the client whose model answers."""


def of_facts(runs: Sequence[Outcome], name: str) -> list[Outcome]:
    """Return the part of runs that a column of `FACTS` is over."""
    facts = FACTS[name]
    return [by_knowledge(run, facts) if facts else run.part(Asked("test")) for run in runs]


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
    runs = {label: list(seeds.values()) for label, seeds in compared.groups.items()}
    every = [run for seeds in runs.values() for run in seeds]
    names = [name for name in score_names(every[0].results["final"]) if name != "loss"] or ["loss"]
    if not facts_told(every):
        return None
    first, *others = compared.labels
    parts = {name: {label: of_facts(seeds, name) for label, seeds in runs.items()} for name in FACTS}
    values = {"base": {name: over_seeds(parts[name][first], names[0], "base") for name in FACTS}}
    values |= {label: {name: over_seeds(parts[name][label], names[0]) for name in FACTS} for label in runs}
    against = next((label for label in others if label.startswith("local_only") and compared.pairs(first, label)), "")
    pairs = compared.pairs(first, against) if against else []
    both = [name for name in FACTS if pairs and values[first][name] and values[against][name]]
    chosen = {name: [(of_facts([one], name)[0], of_facts([two], name)[0]) for one, two in pairs] for name in both}
    return _Knowledge(names[0], values, against, {name: difference(chosen[name], names[0]) for name in both})


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
