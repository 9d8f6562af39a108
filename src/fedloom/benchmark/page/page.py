"""One page that says what a suite, a folder of runs or a run has found, in one file that loads nothing.

The templates hold what it says and where; the other modules give them numbers and drawings.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedloom.base.errors import RunError
from fedloom.base.files import write_atomic
from fedloom.base.shown import shown
from fedloom.benchmark.claims import Conclusion, conclude
from fedloom.benchmark.page import background, content, figures, grids, safety, verdict, words
from fedloom.benchmark.page.findings import Findings
from fedloom.benchmark.page.study import load
from fedloom.benchmark.suite import SuiteOutcome

__all__ = ["headlines", "page", "write_report"]


def headlines(told: Conclusion) -> list[str]:
    """Return what the head of the page says: who wins, by how much, how sure, and what to know beside it."""
    found = Findings(told)
    return [verdict.sentence(found), *verdict.doubts(found)] if told.study.cells else []


def write_report(folder: Path, out: Path | None = None, *, told: Conclusion | None = None) -> Path:
    """Write the page of a directory and return its path, `report.html` in the directory if no other is given.

    `told` is what the directory holds, for whoever knows it already. The same directory, given alike, gives the same
    bytes. Refused: a folder without a finished run, damaged files, no matplotlib.
    """
    text = page(folder, told)
    path = out or folder / "report.html"
    write_atomic(path, text)
    return path


def _foreign(value: Any) -> Any:
    return shown(value, breaks=True) if type(value) is str else value  # what is Markup we have written


def page(folder: Path, told: Conclusion | None = None) -> str:
    """Return the HTML of the page of a directory."""
    told = told or conclude(load(folder))
    study = told.study
    if not study.cells:
        raise RunError(f"{folder}: none of its {len(study.missing)} runs is complete; `fedloom resume` them first.")
    found = Findings(told)
    forest, forest_label = grids.forest(found)
    loader = PackageLoader("fedloom.benchmark.page", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=False, finalize=_foreign
    )
    filters: dict[str, Callable[[Any], str]] = {"string": str} | {name: vars(words)[name] for name in words.FILTERS}
    environment.filters.update(filters)
    return environment.get_template("page.html.jinja").render(
        kind=_kind(study),
        found=found,
        verdict=verdict,
        figures=figures,
        forest=forest,
        forest_label=forest_label,
        grids=grids.grids,
        curves=grids.curves(found),
        scores=grids.scores(found),
        safety=safety,
        attacks=safety.rows(study),
        content=content,
        generating=content.rows(study),
        pictures=content.samples("content-samples", study),
        data=background.data(study, folder),
        answers=background.answers(study),
        stages=background.stages(study),
        costs=background.costs(study),
        privacy=background.privacy(study),
        environment=background.environment(study),
        contents=[],
        next_number=itertools.count(1).__next__,
        written=lambda shown, name: filters[name](shown) if name else shown,
    )


def _kind(study: SuiteOutcome) -> str:
    counts = ((study.data, "data set"), (study.methods, "method"), (study.seeds, "seed"))
    return "fedloom report: " + ", ".join(words.plural(len(values), what) for values, what in counts)
