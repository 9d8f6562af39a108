"""Scores over runs and their differences with intervals: every number of a run that has one comes from here.

`show` is over one run, `compare` over the seeds of several kinds, a suite over data sets besides: of one seed intervals
are bootstrapped over questions and clients, of several they are Student's over the seeds and what these share.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from fedloom.base.errors import DataError, RunError
from fedloom.evaluation.held_out import Scored
from fedloom.evaluation.intervals import LEVEL, Estimate, Interval
from fedloom.evaluation.repetitions import Repetition, mean_interval
from fedloom.results.outcome import Asked, Choice, Outcome
from fedloom.results.per_client import by_knowledge, languages_of_models

__all__ = ["FACTS", "TEST", "Estimate", "Phase", "Runs", "Where", "contrast", "crossed", "estimate", "repetitions"]

Runs = Sequence[Mapping[int, Outcome]]
"""Runs of one kind, by data set and by seed."""

Phase = Literal["base", "tuned", "final"]
Row = TypeVar("Row", bound=Hashable)
Column = TypeVar("Column", bound=Hashable)
Value = TypeVar("Value")


@dataclass(frozen=True)
class Where(Asked):
    """Chooses questions, and which models answer them."""

    facts: Literal["all", "own", "others"] = "all"
    """Of the test: all, or those about what the records of a model's own client are about, or the rest."""
    own: str = ""
    """A tag: a model counts on questions whose value of it its own clients have; "" takes all models."""

    def __call__(self, run: Outcome) -> Outcome:
        """Return the part of a run that answers them; a model that all share is everybody's own."""
        chosen = super().__call__(run if self.facts == "all" else by_knowledge(run, self.facts))
        if not self.own:
            return chosen
        values = languages_of_models(run, self.own)

        def is_own(one: Scored) -> bool:
            return not one.owner or one.tags.get(self.own) in values[one.owner]

        return chosen.kept(is_own)


TEST = Where("test")
FACTS: Mapping[str, Where] = {
    "own facts": Where("test", facts="own"),
    "others' facts": Where("test", facts="others"),
    "all": TEST,
}
"""Whose facts a question of the test asks for, of the client whose model answers."""


def estimate(runs: Runs, where: Choice, *scores: str, phase: Phase = "final") -> Interval | None:
    """Return a score over the seeds, the mean over the data sets; None where a run has none.

    `scores` is the score on each data set.
    """
    told = [
        run.part(where).table(score, phase).value
        for seeds, score in zip(runs, scores, strict=True)
        for run in seeds.values()
    ]
    if not told or any(map(math.isnan, told)):
        return None
    return mean_interval(repetitions(runs, None, where, scores, (phase, phase)), resamples=_resamples(runs))


def contrast(
    one: Runs,
    other: Runs,
    where: Choice,
    *scores: str,
    phases: tuple[Phase, Phase] = ("final", "final"),
    level: float = LEVEL,
) -> Interval:
    """Return the score of runs less that of others of the same seeds, the mean over the data sets.

    `scores` is the score on each data set; `phases` says when either has it. Refused: pairs that were asked different
    questions, or whose models are those of different clients, and a score that one of them lacks.
    """
    seeds = repetitions(one, other, where, scores, phases)
    if not seeds[0]:
        raise DataError("no seed has both.")
    return mean_interval(seeds, resamples=_resamples(one), level=level)


def crossed(cells: Iterable[tuple[Row, Column, Value]]) -> dict[Row, dict[Column, Value]]:
    """Return cells by row and by column, both in the order of their first appearance."""
    table: dict[Row, dict[Column, Value]] = {}
    for row, column, value in cells:
        table.setdefault(row, {})[column] = value
    return table


def _resamples(runs: Runs) -> int:
    return next((run.resamples for seeds in runs for run in seeds.values()), 1)


def repetitions(
    one: Runs,
    other: Runs | None,
    where: Choice,
    scores: Sequence[str],
    phases: tuple[Phase, Phase] = ("final", "final"),
) -> list[list[Repetition]]:
    """Return by data set and seed a score, or what it is more than another's, of the seeds that all have."""
    sides = [one] if other is None else [one, other]
    shared = [seed for seed in one[0] if all(seed in runs for side in sides for runs in side)]
    return [
        [_repetition([side[at][seed].part(where) for side in sides], score, phases) for seed in shared]
        for at, score in enumerate(scores)
    ]


def _repetition(runs: Sequence[Outcome], score: str, phases: tuple[Phase, Phase]) -> Repetition:
    """Return a score of a run, or its difference to another, as one of several seeds."""
    tables = [run.table(score, phase) for run, phase in zip(runs, phases, strict=False)]
    if len(runs) > 1:
        _refuse_unpaired(runs, phases, [table.owner_C for table in tables])
    # A score that some examples lack is over other questions in another seed.
    questions = runs[0].asked(phases[0]), len(tables[0].client_N)
    return Repetition(*tables, questions=questions, data=runs[0].data_id)


def _refuse_unpaired(runs: Sequence[Outcome], phases: Sequence[Phase], owners: Sequence[tuple[str, ...]]) -> None:
    pair = " and ".join(run.path for run in runs)
    one, other = (run.questions(phase) for run, phase in zip(runs, phases, strict=True))
    if one != other:
        raise RunError(f"{pair} were asked different questions: their scores cannot be paired.")
    shares = [run.card.get("data_sha256", run.path) for run in runs]
    # Of the same data, models of clusters and of clients may be told apart; else their clients are others.
    if all(len(names) > 1 for names in owners) and owners[0] != owners[1] and shares[0] != shares[1]:
        raise RunError(f"{pair} have models of different clients: their scores cannot be paired.")
