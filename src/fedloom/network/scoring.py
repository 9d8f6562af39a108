"""Evaluation at nodes: a second kind of job, answered by a total and a weight for each score; no text ever leaves.

What may leave is what the owner's policy names (`metrics`), over at least `min_examples` held-out examples. A node that
may not tell says why, and counts as absent: nobody waits for it.

Each evaluation that the approved run plans is answered for one set of parameters: a server that could ask as often as
it likes, and with what it likes, would have an oracle on the examples.
"""

from collections.abc import Mapping
from typing import Any, cast

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.mean import Mean
from fedloom.network.frames import number_from, number_to, text_in, whole_in
from fedloom.runs.measure import OwnScores
from fedloom.runs.tuning import TuningRun

__all__ = ["may_tell", "planned_round", "score_names", "scores_from", "scores_to"]


def score_names(run: TuningRun) -> tuple[str, ...]:
    """Return the names of all that nodes may be asked for: what the task tells, and the run's metrics."""
    return (*run.task.examining().tells, *(metric.name for metric in run.evaluation.metrics))


def planned_round(settings: Mapping[str, Any], phase: str) -> int | None:
    """Return after how many rounds the approved run evaluates in a phase; None where it has no such phase."""
    rounds, every = settings["rounds"], settings["evaluation"].get("every", 0)
    between = {f"round_{number:05d}": number for number in (range(every, rounds, every) if every else ())}
    return ({"base": 0, "tuned": rounds, "final": rounds} | between).get(phase)


def may_tell(names: tuple[str, ...], allowed: tuple[str, ...], *, examples: int, least: int) -> None:
    """Refuse scores that a policy does not name, and those over fewer examples than it allows: ConfigError."""
    for name in names:
        if name not in allowed:
            raise ConfigError(f"metrics: found '{name}', allowed are {', '.join(allowed) or 'none'}.")
    if examples < least:
        raise ConfigError(f"min_examples: found {examples} that are held out, allowed are {least} or more.")


def scores_to(job: str, told: OwnScores | str) -> dict[str, Any]:
    """Return the header that tells scores, or why they are withheld."""
    head = {"kind": "scores", "job": job}
    if isinstance(told, str):
        return head | {"withheld": told[:2000]}
    scores = {
        name: {"total": number_to(one.total), "weight": number_to(one.weight)} for name, one in told.means.items()
    }
    return head | {"examples": told.examples, "scores": scores}


def scores_from(header: Mapping[str, Any], names: tuple[str, ...]) -> OwnScores | str:
    """Return the scores of a header, or why they are withheld; DataError for anything that was not asked for."""
    if "withheld" in header:
        return text_in(header, "withheld", longest=2000) or "withheld"
    found, examples = header.get("scores"), whole_in(header, "examples")
    if not isinstance(found, dict) or not found or examples < 1:
        raise DataError("scores: found none, or no examples.")
    means: dict[str, Mean] = {}
    for name, one in cast("dict[str, Any]", found).items():
        if name not in names or not isinstance(one, dict):
            raise DataError(f"scores: found '{name[:80]}', asked for were {', '.join(names)}.")
        table = cast("dict[str, Any]", one)
        means[name] = Mean(number_from(table, "total"), number_from(table, "weight"))
        if means[name].weight < 0:
            raise DataError(f"scores: found a weight of {means[name].weight:g} for '{name}', allowed are >= 0.")
    return OwnScores(examples, means)
