"""What a page is about: a suite, a folder of runs or one run, all read as data sets x methods x seeds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.base import config
from fedloom.base.errors import MissingFileError, RunError
from fedloom.benchmark.stated import BASE
from fedloom.benchmark.suite import Key, Suite, SuiteOutcome, load_suite_directory
from fedloom.results.outcome import Outcome, outcome
from fedloom.results.per_client import direction
from fedloom.results.show import without_seeds
from fedloom.runs.directory import RunDirectory

__all__ = ["load"]

_USUAL = ("exact_match", "preference_accuracy")  # what runs are ranked by where no suite says anything


@dataclass(frozen=True)
class _Run:
    """A run directory and what tells it from others of its folder."""

    folder: Path
    method: str
    seed: int
    table: Mapping[str, Any]


def load(folder: Path) -> SuiteOutcome:
    """Return what a directory holds, a suite as it is, else the runs found as one.

    Runs of a folder are told apart by their folders' names less `_s<seed>`; those with unlike data, partition or model
    are of several data sets. A folder without a run is refused.
    """
    return load_suite_directory(folder) if (folder / "suite.toml").is_file() else _as_suite(folder)


def _as_suite(folder: Path) -> SuiteOutcome:
    single = (folder / "run.toml").is_file()
    folders = [folder] if single else sorted(path.parent for path in folder.glob("*/run.toml"))
    if not folders:
        raise MissingFileError(
            f"{folder}: holds no suite.toml, no run.toml and no folder with one; give the folder of a suite, of a run "
            "or of several runs."
        )
    runs = [_run(path.resolve()) for path in folders]
    names = _data_names(runs)
    placed = {(name, method, run.seed): run for run, name, method in zip(runs, names, _methods(runs), strict=True)}
    if len(placed) < len(runs):
        raise RunError(f"{folder}: two of its runs have the same name and seed; rename one of the folders.")
    directories = {key: RunDirectory(run.folder) for key, run in placed.items()}
    cells = {key: outcome(directory) for key, directory in directories.items() if directory.complete}
    missing = tuple(key for key in placed if key not in cells)
    return SuiteOutcome(_suite(folder.resolve().name, placed, cells), cells, missing)


def _run(folder: Path) -> _Run:
    where = str(folder / "run.toml")
    table = config.parse(RunDirectory(folder).read("run.toml"), where)
    seed = table.get("seed")
    if type(seed) is not int:
        raise RunError(f"{where}: seed: found {seed!r}, allowed is the resolved run as fedloom wrote it.")
    return _Run(folder, _slug(folder.name.removesuffix(f"_s{seed}")), seed, table)


def _slug(name: str) -> str:
    """Return a name as suites allow them."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).lstrip("-_") or "run"
    return f"{plain}-run" if plain == BASE else plain


def _methods(runs: Sequence[_Run]) -> list[str]:
    """Return the runs' names; whole folder names where less would not tell them apart."""
    seen = [(run.method, run.seed) for run in runs]
    clear = len(set(seen)) == len(seen) or len({run.table.get("data", {}).get("name") for run in runs}) > 1
    return [run.method if clear else _slug(run.folder.name) for run in runs]


def _data_names(runs: Sequence[_Run]) -> list[str]:
    """Return the name of each run's data; runs whose data differ in more than a seed get different ones."""
    tables = [without_seeds({key: run.table.get(key) for key in ("data", "partition", "model")}) for run in runs]
    kinds = [table for n, table in enumerate(tables) if table not in tables[:n]]
    plain = [_slug(str((kind["data"] or {}).get("name", "data"))) for kind in kinds]
    unique = [name if plain.count(name) == 1 else f"{name}-{n + 1}" for n, name in enumerate(plain)]
    return [unique[kinds.index(table)] for table in tables]


def _suite(title: str, placed: Mapping[Key, _Run], found: Mapping[Key, Outcome]) -> Suite:
    scores = {data: _headline([one for (name, _, _), one in found.items() if name == data]) for data, _, _ in placed}
    return Suite(
        title=title,
        seeds=tuple(sorted({seed for _, _, seed in placed})),
        scores=scores,
        data={data: {} for data, _, _ in placed},
        methods={method: {} for _, method, _ in placed},
    )


def _headline(found: Sequence[Outcome]) -> str:
    """Return what to rank runs by: the usual score if they have it, else the first that has a better end, else loss."""
    scores = dict.fromkeys(name for one in found for scored in one.results.get("final", ()) for name in scored.scores)
    usual = [name for name in _USUAL if name in scores]
    return (usual or [name for name in scores if name != "loss" and direction(name)] or ["loss"])[0]
