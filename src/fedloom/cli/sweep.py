"""`fedloom sweep`: a small grid over named keys of a run file, from which held-out questions pick the best.

A point of the grid is a run, the whole a suite with one data set, carried out, stopped and gone on with as every suite
is. Every run says `evaluation.split = "tune"`: it never asks a question that a report is about.
"""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedloom.base.errors import ConfigError, RunError
from fedloom.base.tables import Table
from fedloom.cli.output import AsJson, RunFile, overriding, tell

if TYPE_CHECKING:
    from fedloom.benchmark.suite import Suite, SuiteOutcome
    from fedloom.evaluation.statistics import Interval

__all__ = ["edges", "points_of", "sweep"]

_DATA = "validation"


def sweep(
    file: RunFile,
    overrides: Annotated[list[str] | None, overriding("protocol=local_only")] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option("--grid", help="key=value,value,...; several make every combination.", show_default=False),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="A seed; may be repeated. Left out: the file's.", show_default=False)
    ] = None,
    score: Annotated[str, typer.Option(help="What picks; left out: the file's first metric.", show_default=False)] = "",
    out: Annotated[Path | None, typer.Option(help="The directory, made or gone on with.", show_default=False)] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but the overrides that won.")] = False,
) -> None:
    """Try every point of a grid, score it on validation questions, never on the test, and write the best run file."""
    from fedloom.benchmark.suite import load_suite_directory
    from fedloom.cli.bench import carried_out

    given, points = overrides or [], points_of(grid or [])
    suite = _suite(file, given, points, seed or [], score)
    folder = out or Path("runs") / f"{file.stem}_sweep"
    if problems := carried_out(suite, folder, jobs=jobs, silent=quiet or as_json, called="runs"):
        raise RunError(f"{folder}: {problems[0]}; mend that, and the same command goes on.")
    rows = _rows(load_suite_directory(folder), points)
    best = _best(rows, suite.score)
    _write_run([*given, *best.words], file, folder / "best.toml")
    told = [*edges(points, best.words), *_spent(suite), str(folder / "best.toml")]
    texts, tables = [" ".join(best.words), *([] if quiet else told)], [] if quiet else [_table(rows, best, suite)]
    tell(_record(rows, best, suite.score), tables, texts, as_json=as_json)


def _suite(
    file: Path, overrides: Sequence[str], points: Sequence[Sequence[str]], seeds: Sequence[int], score: str
) -> "Suite":
    """Return the grid as a suite: a method for each of its points."""
    from fedloom.base import config
    from fedloom.benchmark.suite import Suite, cells_of
    from fedloom.results.per_client import direction
    from fedloom.runs.tuning import read_run, with_plugins

    table = reduce(config.apply_override, [*overrides, "evaluation.split=tune"], config.read_toml(file))
    run = read_run(table := with_plugins(table, file.parent))
    none: Mapping[str, Any] = {}
    methods = {_slug(point): reduce(config.apply_override, point, none) for point in points}
    if len(methods) < 2:
        raise ConfigError("--grid: found one point, allowed are two or more: --grid local.lr=5e-3,1e-2,2e-2.")
    suite = Suite(
        title=f"{file.stem}, validation",
        seeds=tuple(seeds) or (run.seed,),
        seed_keys=("seed", "data.seed") if "seed" in vars(run.data) else ("seed",),
        score=score or next((metric.name for metric in run.evaluation.metrics), "loss"),
        common=table,
        data={_DATA: {}},
        methods=methods,
    )
    told = [*run.task.tells, *(metric.name for metric in run.evaluation.metrics)]
    allowed = [name for name in told if direction(name)]
    if suite.score not in allowed:
        raise ConfigError(f"--score: found '{suite.score}', allowed: {', '.join(allowed)}.")
    cells_of(suite)  # for its refusals
    return suite


def points_of(grid: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the points of a grid as overrides.

    >>> points_of(["local.lr=1e-2,2e-2", "rounds=4"])
    [('local.lr=1e-2', 'rounds=4'), ('local.lr=2e-2', 'rounds=4')]
    """
    return list(product(*map(_words, grid)))


def _words(option: str) -> list[str]:
    """Return `key=value` for each value of an option `key=value,value`; values with commas stand in a TOML list."""
    key, _, text = option.partition("=")
    try:
        listed = tomllib.loads(f"values = [{text}]")["values"]
        values = [json.dumps(value) for value in listed] if any(mark in text for mark in "[{\"'") else text.split(",")
    except ValueError:
        values = text.split(",")
    return [f"{key.strip()}={value.strip()}" for value in values]


def _slug(point: Sequence[str]) -> str:
    return "-".join("".join(letter if letter.isalnum() else "_" for letter in word) for word in point)


@dataclass(frozen=True)
class _Row:
    """A point of the grid and what validation questions say of it."""

    words: Sequence[str]
    value: "Interval"
    loss: "Interval"


def _rows(found: "SuiteOutcome", points: Sequence[Sequence[str]]) -> list[_Row]:
    from fedloom.results.estimates import Where, estimate

    rows: list[_Row] = []
    for point in points:
        runs = found.runs(_DATA, _slug(point))
        value, loss = (estimate([runs], Where("validation"), score) for score in (found.suite.score, "loss"))
        if value is None or loss is None:
            place = next(iter(runs.values())).path
            raise RunError(f"{place}: no validation example has the score; set evaluation.holdout above 0.")
        rows.append(_Row(point, value, loss))
    return rows


def _best(rows: Sequence[_Row], score: str) -> _Row:
    """Return the best point; of equal ones the one of least loss, of these the first."""
    from fedloom.results.per_client import direction

    return max(rows, key=lambda row: (direction(score) * row.value.value, -row.loss.value))


def _table(rows: Sequence[_Row], best: _Row, suite: "Suite") -> Table:
    keys = [word.partition("=")[0] for word in best.words]
    cells = [
        (
            *(word.partition("=")[2] for word in row.words),
            f"{row.value:.3f}",
            f"{row.loss.value:.3f}",
            "best" * (row is best),
        )
        for row in rows
    ]
    title = f"{suite.score} on validation questions, {len(suite.seeds)} seed{'s' * (len(suite.seeds) > 1)}"
    return Table(title, (*keys, suite.score, "loss", ""), tuple(cells))


def _record(rows: Sequence[_Row], best: _Row, score: str) -> dict[str, Any]:
    from fedloom.base.files import plain

    told = [{"overrides": list(row.words), score: plain(row.value), "loss": plain(row.loss)} for row in rows]
    return {"score": score, "best": list(best.words), "rows": told}


def edges(points: Sequence[Sequence[str]], best: Sequence[str]) -> list[str]:
    """Return a warning for each number that won at an end of what was tried."""
    found: list[str] = []
    for at, word in enumerate(best):
        key, _, text = word.partition("=")
        tried = [_number(point[at].partition("=")[2]) for point in points]
        value = _number(text)
        if not any(map(math.isnan, tried)) and len(set(tried)) > 1 and value in (min(tried), max(tried)):
            side = "smallest" if value == min(tried) else "largest"
            found.append(f"{key}: {text} is the {side} that was tried; a wider grid may hold a better one.")
    return found


def _spent(suite: "Suite") -> list[str]:
    """Return a warning where the points are private: who reads of one that won has learnt from all of them."""
    from fedloom.benchmark.suite import cells_of

    cells = cells_of(suite)
    if all(not cell.run.privacy.covers().private for cell in cells):
        return []
    return [
        f"privacy: {len(cells)} runs trained on clients' records; the choice is covered by no epsilon of one alone."
    ]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _write_run(overrides: Sequence[str], file: Path, path: Path) -> None:
    """Write the run file of the point that won, every key written out."""
    from fedloom import api
    from fedloom.base import config
    from fedloom.base.files import write_atomic
    from fedloom.base.outside import plugin_files

    run = api.load_run(file, overrides)
    for name, text in ({path.name: config.dump(run)} | plugin_files(run.plugins)).items():
        write_atomic(path.parent / name, text)
