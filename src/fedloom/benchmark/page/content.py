"""What a page says of generated examples: score against budget, exposure, drift, cost, and what they look like."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from fedloom.base.errors import FedloomError
from fedloom.benchmark.page.drawing import MARKERS, drawn, series, short
from fedloom.benchmark.page.figures import in_panels
from fedloom.benchmark.suite import SuiteOutcome
from fedloom.contracts.examples import Example
from fedloom.contracts.labelled import Picture
from fedloom.evaluation.repetitions import over_seeds
from fedloom.evaluation.statistics import Interval
from fedloom.results.content import content_of, stage_of_content
from fedloom.results.estimates import TEST, estimate
from fedloom.results.outcome import Outcome
from fedloom.runs.directory import RunDirectory
from fedloom.runs.preparing import examples_made
from fedloom.runs.tuning import run_of

__all__ = ["Row", "budgets", "rows", "samples"]

_CLASSES, _EACH = 10, 4


@dataclass(frozen=True)
class Row:
    """A method on a data set; of measures without a number None."""

    data: str
    method: str
    generates: bool
    score: Interval | None
    per_client: float
    at_server: float
    visits: float | None
    drift: Interval | None
    cost: Mapping[str, float] | None
    """The mean over the seeds; None: missing."""


def rows(study: SuiteOutcome) -> list[Row]:
    """Return a row for each kind of run; none where nothing was generated."""
    kinds = list(study.kinds())
    if not any(stage_of_content(one) for _, _, runs in kinds for one in runs.values()):
        return []
    return [_row(study, *kind) for kind in kinds]


def _row(study: SuiteOutcome, data: str, method: str, runs: Mapping[int, Outcome]) -> Row:
    found = [content_of(one) for one in runs.values()]
    costs = [one.cost for one in found if one.cost]
    means = {name: _mean([one[name] for one in costs]) for name in costs[0]} if costs else None
    drifts, visits = [one.drift for one in found], [one.visits for one in found]
    return Row(
        data,
        method,
        any(stage_of_content(one) for one in runs.values()),
        estimate([runs], TEST, study.suite.headline(data)),
        _mean([one.per_client for one in found]),
        _mean([one.at_server for one in found]),
        _mean([one for one in visits if one is not None]) if None not in visits else None,
        over_seeds([one for one in drifts if one is not None]) if None not in drifts else None,
        means,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def budgets(name: str, found: Sequence[Row]) -> Markup:
    """Return a panel for each data set with a point for each method: generated examples of a client, and its score."""
    by_data = {row.data: [(one, one.score) for one in found if one.data == row.data and one.score] for row in found}
    methods = list(dict.fromkeys(row.method for row in found))

    def draw(figure: Any) -> None:
        lines: dict[str, Any] = {}
        for panel, _, of_data in in_panels(figure, by_data):
            for row, score in of_data:
                lines |= _point(panel, row, score, methods.index(row.method))
            panel.set_xlabel("generated examples of a client")
            panel.set_ylabel("score")
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4, fontsize=9)

    height = 2.9 * math.ceil(len(by_data) / 2) + 0.26 * math.ceil(len(methods) / 4)
    return drawn(name, 9.2 if len(by_data) > 1 else 6.4, height, draw)


def _point(panel: Any, row: Row, score: Interval, number: int) -> dict[str, Any]:
    colour, marker = series(number), MARKERS[number // 8 % len(MARKERS)]
    panel.plot([row.per_client] * 2, [score.low, score.high], color=colour, linewidth=1, alpha=0.5)
    (point,) = panel.plot([row.per_client], [score.value], marker, color=colour, markersize=6, linestyle="none")
    return {short(row.method): point}


def samples(name: str, study: SuiteOutcome) -> Markup | None:
    """Return generated pictures by class beside public ones; None where no run has both.

    Nothing private is shown, nor what a private picture guided: it may lie close by.
    """
    found = next((one for _, _, runs in study.kinds() for one in runs.values() if _from_words(one)), None)
    if found is None:
        return None
    directory = RunDirectory(Path(found.path))
    try:
        run = run_of(directory)
        public, made = run.data.load().get("public", ()), examples_made(directory.path, "generated")
    except (FedloomError, OSError):  # the data may lie elsewhere by now; what the runs scored stands without them
        return None
    sides = {"public": _by_class(public), "generated": _by_class(made)}
    classes = [label for label in sides["public"] if label in sides["generated"]][:_CLASSES]
    return drawn(name, 9.2, 4.2, lambda figure: _pictures(figure, sides, classes)) if classes else None


def _from_words(found: Outcome) -> bool:
    stage = stage_of_content(found)
    return bool(stage) and stage.get("guidance") == "prompt" and stage["generator"]["name"] != "public"


def _by_class(examples: Sequence[Example]) -> dict[str, list[Picture]]:
    found: dict[str, list[Picture]] = {}
    for one in examples:
        if isinstance(one, Picture):
            found.setdefault(one.label, []).append(one)
    return dict(sorted(found.items()))


def _pictures(figure: Any, sides: Mapping[str, Mapping[str, Sequence[Picture]]], classes: Sequence[str]) -> None:
    axes = figure.subplots(2 * _EACH, len(classes), squeeze=False)
    for at, (side, pictures) in enumerate(sides.items()):
        for column, label in enumerate(classes):
            for row in range(_EACH):
                panel = axes[at * _EACH + row][column]
                panel.set_xticks([])
                panel.set_yticks([])
                panel.grid(visible=False)
                if row < len(pictures[label]):
                    _shown(panel, pictures[label][row])
                if row == 0 and at == 0:
                    panel.set_title(short(label, 12), fontsize=9)
        axes[at * _EACH][0].set_ylabel(side, fontsize=9)


def _shown(panel: Any, picture: Picture) -> None:
    pixels_CHW = np.frombuffer(picture.pixels, np.uint8).reshape(picture.shape)
    grey = len(pixels_CHW) == 1
    panel.imshow(
        pixels_CHW[0] if grey else pixels_CHW.transpose(1, 2, 0), cmap="gray" if grey else None, vmin=0, vmax=255
    )
