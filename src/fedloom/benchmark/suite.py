"""Suites: a matrix of data sets, methods and seeds, each cell an ordinary run, and what is claimed of them all.

A cell's run file is `common`, over it `data.<data>`, over it `methods.<method>`, over it `methods.<method>.on.<data>`,
over it the seed, which also stands for {seed} in texts. Tables are merged key by key; one that names another plug-in
replaces the table below it whole, since the keys of one plug-in mean nothing to another. Keys of a table without a name
are for whichever is named above.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, cast

from fedloom.base import config
from fedloom.base.errors import ConfigError, FedloomError, MissingFileError, RunError, suggest
from fedloom.base.plugin import AtLeast, Count, check_ranges
from fedloom.benchmark.stated import BASE, Claim, Control
from fedloom.results.outcome import Outcome, outcome
from fedloom.runs.directory import RunDirectory
from fedloom.runs.tuning import TuningRun, read_run, with_plugins

__all__ = [
    "Cell",
    "Key",
    "Quick",
    "Suite",
    "SuiteOutcome",
    "cells_of",
    "check_directory",
    "load_suite",
    "load_suite_directory",
    "merged",
]

Key = tuple[str, str, int]
"""Data set, method and seed of a cell."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
Overlay = Mapping[str, Any]


def _empty() -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Quick:
    """What `--quick` changes."""

    seeds: tuple[Count, ...] = ()
    common: Mapping[str, Any] = field(default_factory=_empty)
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=_empty)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=_empty)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite file."""

    title: str
    seeds: tuple[Count, ...] = (0,)
    seed_keys: tuple[str, ...] = ("seed",)
    """Keys of a run that a seed sets; `data.seed` among them draws the data anew."""
    jobs: AtLeast = 2
    """Worker processes, of one thread each."""
    score: str = "exact_match"
    """What methods are ranked by, on the common test."""
    scores: Mapping[str, str] = field(default_factory=dict[str, str])
    """What they are ranked by on a data set for which that is another score."""
    common: Mapping[str, Any] = field(default_factory=_empty)
    data: Mapping[str, Mapping[str, Any]]
    methods: Mapping[str, Mapping[str, Any]]
    quick: Quick = field(default_factory=Quick)
    claims: tuple[Claim, ...] = ()
    controls: tuple[Control, ...] = ()

    def __post_init__(self) -> None:
        check_ranges(self)
        for what, names in (("data", self.data), ("methods", self.methods)):
            if not names:
                raise ConfigError(f"{what}: found none, allowed is at least one table [{what}.<name>].")
            wrong = [name for name in names if not _NAME.fullmatch(name) or name == BASE]
            if wrong:
                raise ConfigError(
                    f"{what}.{wrong[0]}: allowed are names of letters, digits, '_' and '-', and not '{BASE}'."
                )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds: found {list(self.seeds)}, allowed is at least one, each once.")
        self._check_names()

    def headline(self, data: str) -> str:
        """Return the score by which methods are ranked on a data set."""
        return self.scores.get(data, self.score)

    def _check_names(self) -> None:
        """Refuse claims and overlays about what the suite has not."""
        for number, claim in enumerate(self.claims):
            _need_known(f"claims[{number}].methods", claim.methods, self.methods)
            _need_known(f"claims[{number}].than", [claim.than] * bool(claim.than), [*self.methods, BASE])
            _need_known(f"claims[{number}].beside", [claim.beside] * bool(claim.beside), self.methods)
            _need_known(f"claims[{number}].data", claim.data, self.data)
        for number, control in enumerate(self.controls):
            _need_known(f"controls[{number}].method", [control.method] * bool(control.method), [*self.methods, BASE])
        _need_known("scores", self.scores, self.data)
        _need_known("quick.data", self.quick.data, self.data)
        _need_known("quick.methods", self.quick.methods, self.methods)
        for name, overlay in self.methods.items():
            _need_known(f"methods.{name}.on", overlay.get("on", {}), self.data)


def _need_known(where: str, names: Any, known: Any) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{where}: found '{name}'. {suggest(name, known)}")


@dataclass(frozen=True)
class Cell:
    """One run of a suite."""

    data: str
    method: str
    seed: int
    run: TuningRun

    @property
    def key(self) -> Key:
        """What tells it from the suite's other cells."""
        return self.data, self.method, self.seed

    @property
    def folder(self) -> str:
        """Its run directory within that of the suite."""
        return _folder(self.key)


def _folder(key: Key) -> str:
    data, method, seed = key
    return f"{data}/{method}_s{seed}"


def load_suite(path: Path, overrides: Sequence[str] = (), *, quick: bool) -> Suite:
    """Return the suite of a TOML file, made quick if asked, `key=value` overrides applied.

    All cells are checked, those of the quick version too. The suite returned has no `quick` part any more.
    """
    table = config.read_toml(path)
    config.build(Suite, table)  # for its refusals, before anything is merged
    changes = table.pop("quick", {})
    if quick and not changes:
        raise ConfigError(f"{path}: found --quick, but the file has no table [quick] that says what is quick.")
    tables = {False: table, True: merged(table, changes)}
    tables = {name: reduce(config.apply_override, overrides, one) for name, one in tables.items()}
    found = {name: config.build(Suite, _with_plugins(one, path.parent)) for name, one in tables.items()}
    for suite in found.values():
        cells = cells_of(suite)
        _check_questions(cells)
        _check_scores(suite, cells)
        _check_means(suite)
    return found[quick]


def _with_plugins(table: Mapping[str, Any], beside: Path) -> dict[str, Any]:
    """Return a suite's table with its plug-ins imported; they are all cells' own."""
    for part in ("data", "methods"):
        for name, one in table.get(part, {}).items():
            if isinstance(one, Mapping) and "plugins" in one:
                raise ConfigError(f"{part}.{name}.plugins: found in one part of a suite; allowed is in [common] alone.")
    common = table.get("common")
    return {**table, "common": with_plugins(common, beside)} if isinstance(common, Mapping) else dict(table)


def _check_means(suite: Suite) -> None:
    """Refuse a claim of a mean over unlike scores."""
    for claim in suite.claims:
        data = claim.data or tuple(suite.data)
        scores = dict.fromkeys(suite.headline(name) for name in data)
        if claim.kind in ("above", "not_above") and claim.over == "mean" and len(scores) > 1 and not claim.score:
            raise ConfigError(
                f"claims: '{claim.text}' is about a mean over data sets of unlike scores ({', '.join(scores)}); name a "
                "score, data sets of one score, or over = 'each'."
            )


def _check_scores(suite: Suite, cells: Sequence[Cell]) -> None:
    """Refuse a score that the runs it is asked of will not tell."""
    for cell in cells:
        asked = cell.run.evaluation
        told = [*cell.run.task.tells, *(metric.name for metric in asked.metrics)]
        told += asked.membership.tells if asked.membership else []
        ranked = f"scores.{cell.data}" if cell.data in suite.scores else "score"
        wanted = {ranked: suite.headline(cell.data)} | {
            f"claims[{number}].score": claim.score
            for number, claim in enumerate(suite.claims)
            if claim.score
            and cell.data in (claim.data or suite.data)
            and cell.method in (*claim.methods, claim.than, claim.beside)
        }
        for where, score in wanted.items():
            if score not in told:
                raise ConfigError(
                    f"{where}: found '{score}', which {cell.data}/{cell.method} does not tell; allowed there: "
                    f"{', '.join(told)}; metrics are named in evaluation.metrics."
                )


def _check_questions(cells: Sequence[Cell]) -> None:
    """Refuse methods that would be asked other questions than those beside them: their scores could not be paired."""
    first: dict[tuple[str, int], Cell] = {}
    for cell in cells:
        beside = first.setdefault((cell.data, cell.seed), cell)
        one, other = (_asked(found.run) for found in (beside, cell))
        keys = [key for key in one if one[key] != other[key]]
        if keys:
            raise ConfigError(
                f"methods.{cell.method}: {keys[0]} is {other[keys[0]]!r} on data '{cell.data}', but {one[keys[0]]!r} "
                f"for '{beside.method}': methods side by side must be asked the same; set it in [common] or [data]."
            )


def _asked(run: TuningRun) -> dict[str, Any]:
    """Return the settings besides the data that decide what a run is asked."""
    return {
        "clients": run.clients,
        "partition": run.partition,
        "evaluation.limit": run.evaluation.limit,
        "evaluation.holdout": run.evaluation.holdout,
        "evaluation.holdout_group": run.evaluation.holdout_group,
        "evaluation.absent": run.evaluation.absent,
        "evaluation.split": run.evaluation.split,
    }


def cells_of(suite: Suite) -> list[Cell]:
    """Return the cells, seed by seed and data set by data set; a wrong key is refused where it stands."""
    return [
        Cell(data, method, seed, _run(suite, data, method, seed))
        for seed in suite.seeds
        for data in suite.data
        for method in suite.methods
    ]


def _run(suite: Suite, data: str, method: str, seed: int) -> TuningRun:
    layers = _layers(suite, data, method)
    seeded = (f"{key}={seed}" for key in suite.seed_keys)
    table = reduce(config.apply_override, seeded, _with_seed(reduce(merged, layers.values(), _empty()), seed))
    try:
        return read_run(table)
    except FedloomError as error:
        raise type(error)(f"{_place(str(error), layers)} (cell {data}/{method}, seed {seed})") from error


def _with_seed(value: Any, seed: int) -> Any:
    """Return a table with the seed in place of {seed} in its texts, as where each seed has a file of its own."""
    if isinstance(value, Mapping):
        return {key: _with_seed(one, seed) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_with_seed(one, seed) for one in value]
    return value.replace("{seed}", str(seed)) if isinstance(value, str) else value


def _layers(suite: Suite, data: str, method: str) -> dict[str, Overlay]:
    """Return the parts of a cell's run file by where they stand, the lowest first."""
    own = {name: value for name, value in suite.methods[method].items() if name != "on"}
    layers = {"common": suite.common, f"data.{data}": suite.data[data], f"methods.{method}": own}
    return layers | {f"methods.{method}.on.{data}": suite.methods[method].get("on", {}).get(data, {})}


def _place(message: str, layers: Mapping[str, Overlay]) -> str:
    """Return a message about a key of a run with the key's path in the suite before it."""
    key = message.partition(":")[0]
    holding = [where for where, layer in layers.items() if config.value_at(layer, key) is not None]
    return f"{holding[-1]}.{message}" if holding else message


def merged(below: Overlay, above: Overlay) -> dict[str, Any]:
    """Return two tables as one, `above` winning key by key; a table that names another plug-in wins as a whole.

    >>> merged({"rounds": 3, "rule": {"name": "prox", "mu": 1.0}}, {"rule": {"mu": 2.0}})
    {'rounds': 3, 'rule': {'name': 'prox', 'mu': 2.0}}
    >>> merged({"rule": {"name": "prox", "mu": 1.0}}, {"rule": {"name": "plain"}})
    {'rule': {'name': 'plain'}}
    >>> merged({"server_opt": {"lr": 0.5}}, {"server_opt": {"name": "adagrad"}})
    {'server_opt': {'lr': 0.5, 'name': 'adagrad'}}
    """
    result = dict(below)
    for key, value in above.items():
        result[key] = _merged_value(result.get(key), value)
    return result


def _merged_value(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    under, over = cast(dict[str, Any], below), cast(dict[str, Any], above)
    another = "name" in under and over.get("name", under["name"]) != under["name"]
    return over if another else merged(under, over)


def check_directory(suite: Suite, folder: Path) -> None:
    """Refuse to go on in a directory of another suite: seeds, methods and data sets may be added, cells not changed."""
    before = _read(folder)
    old, new = ({cell.key: cell.run for cell in cells_of(one)} for one in (before, suite))
    if all(new.get(key) == run for key, run in old.items()):
        return
    keys = [
        key
        for key in config.differing_keys(config.table_of(before), config.table_of(suite))
        if key.partition(".")[0] in ("seeds", "seed_keys", "common", "data", "methods")
    ]
    raise RunError(
        f"{folder / 'suite.toml'}: the suite differs from its directory in {', '.join(keys)}; seeds, methods and data "
        "sets may be added, nothing else changed: undo that or choose another --out."
    )


def _read(folder: Path) -> Suite:
    path = folder / "suite.toml"
    if not path.is_file():
        raise MissingFileError(f"{folder}: no suite directory (it has no suite.toml); give the folder of a suite.")
    return config.build(Suite, config.read_toml(path))


@dataclass(frozen=True)
class SuiteOutcome:
    """What a suite directory holds."""

    suite: Suite
    cells: Mapping[Key, Outcome]
    """The finished cells."""
    missing: tuple[Key, ...]

    @property
    def alike(self) -> tuple[str, ...]:
        """The data sets that a mean is over: those ranked by one score, most of them; none is over unlike scores."""
        scores = [self.suite.headline(name) for name in self.data]
        usual = max(scores, key=scores.count, default="")
        return tuple(name for name, score in zip(self.data, scores, strict=True) if score == usual)

    @property
    def data(self) -> tuple[str, ...]:
        """The data sets, in their order."""
        return tuple(self.suite.data)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, in their order."""
        return tuple(self.suite.methods)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in their order."""
        return self.suite.seeds

    def runs(self, data: str, method: str) -> Mapping[int, Outcome]:
        """Return the finished runs of a data set and a method by seed."""
        keys = {seed: (data, method, seed) for seed in self.seeds}
        return {seed: self.cells[key] for seed, key in keys.items() if key in self.cells}

    def absent_controls(self) -> Iterator[str]:
        """Yield each control arm that no finished run is, with why."""
        ended = {method for _, method, _ in self.cells} | ({BASE} if self.cells else set())
        for one in self.suite.controls:
            why = one.why or f"no run of '{one.method}' has ended"
            if one.method not in ended:
                yield f"missing: {one.arm} ({why})"

    def kinds(self) -> Iterator[tuple[str, str, Mapping[int, Outcome]]]:
        """Yield data set, method and finished runs by seed, where there are any."""
        for data, method in itertools.product(self.data, self.methods):
            if runs := self.runs(data, method):
                yield data, method, runs


def load_suite_directory(folder: Path) -> SuiteOutcome:
    """Return what a suite directory holds; cells that have not ended are named, not read."""
    suite = _read(folder)
    keys = [(data, method, seed) for seed in suite.seeds for data in suite.data for method in suite.methods]
    done = {key: RunDirectory(folder / _folder(key)) for key in keys}
    cells = {key: outcome(directory) for key, directory in done.items() if directory.complete}
    return SuiteOutcome(suite, cells, tuple(key for key in keys if key not in cells))
