"""One page that says what a suite, a folder of runs or a run has found, in one file that loads nothing."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedloom.base.errors import RunError
from fedloom.base.files import write_atomic
from fedloom.benchmark.claims import Conclusion, conclude
from fedloom.benchmark.page import background, fairness, ranking, verdict
from fedloom.benchmark.page.blocks import Section
from fedloom.benchmark.page.findings import Findings
from fedloom.benchmark.page.study import load
from fedloom.benchmark.page.words import plural
from fedloom.benchmark.suite import SuiteOutcome

__all__ = ["page", "write_report"]


def write_report(folder: Path, out: Path | None = None, *, told: Conclusion | None = None) -> Path:
    """Write the page of a directory and return its path, `report.html` in the directory if no other is given.

    `told` is what the directory holds, for whoever knows it already. The same directory, given alike, gives the same
    bytes. Refused: a folder without a finished run, damaged files, no matplotlib.
    """
    text = page(folder, told)
    path = out or folder / "report.html"
    write_atomic(path, text)
    return path


def page(folder: Path, told: Conclusion | None = None) -> str:
    """Return the HTML of the page of a directory."""
    told = told or conclude(load(folder))
    study = told.study
    if not study.cells:
        raise RunError(f"{folder}: none of its {len(study.missing)} runs is complete; `fedloom resume` them first.")
    found = Findings(told)
    sections: list[Section | None] = [
        ranking.ranking(found),
        ranking.facts(found),
        ranking.claims(found),
        ranking.differences(found),
        fairness.clients(found),
        *ranking.groups(found),
        ranking.curves(found),
        ranking.tables(found),
        background.data_card(study, folder),
        background.cost(study),
        background.privacy(study),
        background.environment(study),
        background.gaps(study),
    ]
    loader = PackageLoader("fedloom.benchmark.page", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    return environment.get_template("page.html.jinja").render(
        title=study.title,
        kind=_kind(study),
        verdict=verdict.sentence(found),
        remarks=verdict.remarks(found),
        facts=verdict.facts(found),
        sections=[section for section in sections if section],
    )


def _kind(study: SuiteOutcome) -> str:
    counts = ((study.data, "data set"), (study.methods, "method"), (study.seeds, "seed"))
    return "fedloom report: " + ", ".join(plural(len(values), what) for values, what in counts)
