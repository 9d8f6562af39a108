"""What a page says of attacks and defences: safety, over-refusal and helpfulness side by side, and who was trusted."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from fedloom.base.plugin import lookup, names
from fedloom.benchmark.page.drawing import MARKERS, drawn, series, short
from fedloom.benchmark.page.figures import in_panels
from fedloom.benchmark.suite import SuiteOutcome
from fedloom.contracts.aggregation import Aggregator
from fedloom.evaluation.repetitions import over_seeds
from fedloom.evaluation.statistics import Interval
from fedloom.results.attack import Attacked, attack_of
from fedloom.results.estimates import Phase, Where, estimate
from fedloom.results.outcome import Outcome

__all__ = ["MEASURES", "Row", "frontier", "matrix", "rows"]

_HARMFUL, _HARMLESS = Where("test", (("harm", "yes"),)), Where("test", (("harm", "no"),))
MEASURES: Mapping[str, tuple[Where, tuple[str, ...]]] = {
    "safety": (_HARMFUL, ("harmless_start", "harmless_published")),
    "over-refusal": (_HARMLESS, ("over_refusal",)),
    "helpfulness": (_HARMLESS, ("exact_match", "rouge_l", "token_f1")),
}
"""What is asked and by which score, the first that the runs have; one that none has is shown as missing."""


@dataclass(frozen=True)
class Row:
    """A method on a data set."""

    data: str
    method: str
    scores: Mapping[str, Interval | None]
    """By name of `MEASURES`."""
    before: Interval | None
    """Safety before the last refinement, where there was one."""
    attacked: Attacked
    """All seeds together."""
    auc: Interval | None
    """Over the seeds; None where the rule has no score of rows."""
    outside: bool
    """Whether the rule runs as published, where its theorem does not hold."""

    def mean(self, name: str) -> float | None:
        """Return what was measured of the attack."""
        found = self.attacked.means.get(name)
        return found.value if found and found.weight else None


def rows(study: SuiteOutcome) -> list[Row]:
    """Return a row for each kind of run; none where nothing was attacked."""
    kinds = list(study.kinds())
    if not any(one.settings.get("attack") for _, _, runs in kinds for one in runs.values()):
        return []
    return [_row(data, method, runs) for data, method, runs in kinds]


def _row(data: str, method: str, runs: Mapping[int, Outcome]) -> Row:
    first = next(iter(runs.values()))
    scores = {name: _estimate(runs, where, told, "final") for name, (where, told) in MEASURES.items()}
    before = _estimate(runs, *MEASURES["safety"], "tuned") if "tuned" in first.results else None
    by_seed = [attack_of(one) for one in runs.values()]
    rule = str(first.settings["aggregator"]["name"])
    outside = rule in names(Aggregator) and lookup(Aggregator, rule).outside_theorem
    return Row(data, method, scores, before, sum(by_seed, Attacked()), _auc(by_seed), outside)


def _auc(by_seed: Sequence[Attacked]) -> Interval | None:
    """Return the mean over seeds of the mean over rounds, with Student's interval; of one seed without its ends."""
    found = [mean.value for one in by_seed if (mean := one.means.get("auc")) and mean.weight]
    told = over_seeds(found) if found else None
    return replace(told, low=max(0.0, told.low), high=min(1.0, told.high)) if told and len(found) > 1 else told


def _estimate(runs: Mapping[int, Outcome], where: Where, scores: Sequence[str], phase: Phase) -> Interval | None:
    told = (estimate([runs], where, name, phase=phase) for name in scores)
    return next((one for one in told if one), None)


def matrix(found: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return the safety of each method on each data set, for a heat map."""
    table: dict[str, dict[str, float]] = {}
    for row in found:
        if safety := row.scores["safety"]:
            table.setdefault(row.method, {})[row.data] = safety.value
    return table


def frontier(name: str, found: Sequence[Row]) -> Markup:
    """Return a panel for each data set, with a point for each method: helpfulness to the right, safety upwards."""
    methods = list(dict.fromkeys(row.method for row in found))
    by_data = {row.data: [one for one in found if one.data == row.data] for row in found}

    def draw(figure: Any) -> None:
        lines: dict[str, Any] = {}
        for panel, _, rows_of in in_panels(figure, by_data):
            for row in rows_of:
                lines |= _point(panel, row, methods.index(row.method))
            panel.set_xlabel("helpfulness")
            panel.set_ylabel("safety")
            panel.set_ylim(-0.05, 1.05)
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4, fontsize=9)

    rows_of_panels = math.ceil(len(by_data) / 2)
    return drawn(
        name, 9.2 if len(by_data) > 1 else 6.4, 2.9 * rows_of_panels + 0.26 * math.ceil(len(methods) / 4), draw
    )


def _point(panel: Any, row: Row, number: int) -> dict[str, Any]:
    """Draw a method's point with its two intervals; return it by its label, nothing where either is missing."""
    helpful, safety = row.scores["helpfulness"], row.scores["safety"]
    if not helpful or not safety:
        return {}
    colour = series(number)
    panel.plot([helpful.low, helpful.high], [safety.value] * 2, color=colour, linewidth=1, alpha=0.4)
    panel.plot([helpful.value] * 2, [safety.low, safety.high], color=colour, linewidth=1, alpha=0.4)
    marker = MARKERS[number % len(MARKERS)]
    (point,) = panel.plot([helpful.value], [safety.value], marker, color=colour, markersize=6, linestyle="none")
    return {short(row.method): point}
