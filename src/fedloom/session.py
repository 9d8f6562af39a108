"""Tuning from Python: a model, records and scores that lie in memory, with the settings of a run file.

    run = fedloom.Run({"rounds": 3}, model=model, tokenizer=tokenizer, data={"north": [...], "south": [...]})
    result = run.start("runs/mine", on_round=lambda done: print(done.round, done.loss))
    pandas.DataFrame(result.scores)

The run directory is that of every run: `fedloom show`, `compare`, `report` and `export` read it. A model in memory is
written into it as `base/`, so that what was trained can be loaded again. Records are not: whoever goes on with the run
hands them over anew, and others than those it began with are refused.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

from fedloom import api
from fedloom.base import config
from fedloom.base.errors import ConfigError, FedloomError, ModelError
from fedloom.base.files import atomic_folder, removed_if_refused
from fedloom.base.plugin import plugin, plugins
from fedloom.base.tree import Tree
from fedloom.contracts.federated import Task
from fedloom.data.sources.memory import hold
from fedloom.evaluation.held_out import Scored
from fedloom.evaluation.metrics.texts import OfReference
from fedloom.models.causal_lm import CausalLM
from fedloom.results.outcome import Outcome, outcome
from fedloom.results.show import card_scores, compare_record, show_record, show_table
from fedloom.results.show import compare as compared
from fedloom.runs.directory import RunDirectory
from fedloom.runs.execute import Event, RoundDone
from fedloom.runs.export import Form, export
from fedloom.runs.measure import Evaluated
from fedloom.runs.tuning import TuningRun, read_run
from fedloom.text.pretrained import one_line, quiet

__all__ = ["Progress", "Result", "Run", "compare"]

Rows = Iterable[Mapping[str, object]]
"""Records: dicts, or a `datasets.Dataset`."""
Score = Callable[[str, str], float | None]
"""A score of an answer, given with its reference; None where it does not apply. Less is better where the function has
the attribute `higher_is_better = False`: known in this program; elsewhere of neither end."""


class Saved(Protocol):
    """A model or tokenizer of `transformers`."""

    def save_pretrained(self, save_directory: str, /) -> Any:
        """Write it to a folder."""
        ...


@dataclass(frozen=True)
class Progress:
    """A round has ended."""

    round: int
    n_rounds: int
    loss: float
    """Of training, by supervised token."""
    wall_s: float
    """Since the run began."""
    params: Tree
    """What the clients share, by name."""
    scores: list[dict[str, Any]]
    """Scores with 95 % intervals, a row each, in rounds that `evaluation.every` names; empty in the others."""


class Run:
    """A tuning run made of objects; wrong input raises a FedloomError before anything is trained."""

    def __init__(
        self,
        settings: str | Path | Mapping[str, Any] = "",
        overrides: Sequence[str] = (),
        *,
        model: str | Path | Saved | None = None,
        tokenizer: Saved | None = None,
        data: Mapping[str, Rows] | Rows | None = None,
        test: Rows | None = None,
        validation: Mapping[str, Rows] | Rows | None = None,
        metrics: Sequence[str | Score] = (),
    ) -> None:
        """Read the settings, a run file's path or its keys, and take what is given beside them in their place.

        `model`: a path or hub name, or a decoder of `transformers` with its `tokenizer`. `data`: records by client, or
        all in one list, of which `settings["data"]["tags"]["client"]` names the column that tells whose they are; how
        they are read is said by the other keys of `settings["data"]`. `test` is the common test, `validation` what
        clients hold out. `metrics`: names of metrics, and functions of an answer and its reference.
        """
        _refuse_no_settings(settings)
        if tokenizer is not None and (model is None or isinstance(model, str | Path)):
            raise ConfigError("tokenizer: found without a model in memory; a path brings its own: leave it out.")
        beside = Path() if isinstance(settings, Mapping) or not str(settings) else Path(settings).parent
        table = (
            dict(settings) if isinstance(settings, Mapping) else config.read_toml(Path(settings)) if settings else {}
        )
        table = reduce(config.apply_override, overrides, table)
        splits = {"train": data, "test": test, "validation": validation}
        given = {split: rows for split, rows in splits.items() if rows is not None}
        if given:
            table["data"] = _own_table(table, "data", ("name", "path")) | {"name": "memory", "sha256": _held(given)}
        if metrics:
            named = [_named(one) for one in metrics]
            table["evaluation"] = _own_table(table, "evaluation") | {"metrics": named}
        if isinstance(model, str | Path):
            table["model"] = _own_table(table, "model") | {"path": str(model)}
        elif model is not None:
            _refuse_no_base(model, tokenizer)
        self._objects = (model, tokenizer) if model is not None and not isinstance(model, str | Path) else None
        self._settings = read_run(table, beside)

    @property
    def settings(self) -> TuningRun:
        """Return the run's settings, all of them."""
        return self._settings

    def start(self, out: str | Path, *, on_round: Callable[[Progress], object] = lambda _: None) -> "Result":
        """Run to the end in the new run directory `out`, `on_round` told of each round, and return what came out."""
        run = self._placed(Path(out))
        events = api.start(run, out, source="# Started from Python.\n")
        if self._objects:
            with removed_if_refused(Path(out)):
                _write_base(self._objects, Path(out) / "base")
        return _followed(events, run, Path(out), on_round)

    def resume(self, out: str | Path, *, on_round: Callable[[Progress], object] = lambda _: None) -> "Result":
        """Go on with a run that was stopped, and return what came out; other settings or records are refused."""
        run, events = api.resume(out, expected=self._placed(Path(out)))
        return _followed(events, run, Path(out), on_round)

    def _placed(self, out: Path) -> TuningRun:
        """Return the settings with the place of a model in memory."""
        family = self._settings.model
        if not self._objects:
            return self._settings
        if not isinstance(family, CausalLM):
            raise ConfigError(f"model.name: found '{family.name}', a decoder in memory is read by 'causal_lm'.")
        return replace(self._settings, model=replace(family, path=str((out / "base").resolve())))


def _refuse_no_settings(settings: object) -> None:
    if not isinstance(settings, str | Path | Mapping):
        raise ConfigError(f"settings: found {type(settings).__name__}, allowed is a run file's path or its keys.")


def _own_table(table: Mapping[str, Any], key: str, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return a table of the settings to be added to."""
    own = table.get(key, {})
    if not isinstance(own, Mapping):
        own = {"name": own}
    return {name: value for name, value in own.items() if name not in without}


def _held(given: Mapping[str, Mapping[str, Rows] | Rows]) -> str:
    if "train" not in given:
        raise ConfigError("data: missing beside test or validation; records in memory are given together.")
    return hold(given)


def _refuse_no_base(model: Saved, tokenizer: Saved | None) -> None:
    kinds = [base.__name__ for base in type(model).__mro__]
    if "PeftModel" in kinds:
        raise ConfigError("model: found a PeftModel; give its base, and the adapter's folder as model.adapter.")
    if "PreTrainedModel" not in kinds:
        raise ConfigError(f"model: found {type(model).__name__}, allowed are a path and a decoder of transformers.")
    if tokenizer is None:
        raise ConfigError("tokenizer: missing; a model in memory needs the tokenizer that goes with it.")


def _write_base(objects: tuple[Saved, Saved | None], folder: Path) -> None:
    try:
        with atomic_folder(folder) as new, quiet():
            for one in objects:
                if one is not None:
                    one.save_pretrained(str(new))
    except FedloomError:
        raise
    except Exception as error:  # of a library that is not ours
        raise ModelError(f"model: cannot be written ({one_line(error)}); mend what it says.") from error


def _named(metric: str | Score) -> str:
    """Return the name of a metric; a function becomes one that is called as it is."""
    if isinstance(metric, str):
        return metric
    name = metric.__name__ if isinstance(metric, type(_named)) else ""
    if not name.isidentifier():
        raise ConfigError("metrics: found a function without a name; allowed are names and functions made by def.")
    if name in {told for task in plugins(Task).values() for told in task.tells}:
        raise ConfigError(f"metrics: found a function called '{name}', as a score of tasks is; rename it.")
    better = bool(vars(metric).get("higher_is_better", True))

    class Own(OfReference):
        """A function of the program that made the run."""

        low: ClassVar[float] = -math.inf
        high: ClassVar[float] = math.inf
        higher_is_better: ClassVar[bool | None] = better

        def score(self, text: str, reference: str) -> float | None:
            """Return what the function does."""
            found = cast(object, metric(text, reference))
            if found is None:
                return None
            if not isinstance(found, int | float) or not math.isfinite(found):
                raise ConfigError(f"metrics: '{name}' returned {found!r}, allowed are finite numbers and None.")
            return float(found)

    plugin(name)(Own)
    return name


def _followed(events: Iterator[Event], run: TuningRun, out: Path, on_round: Callable[[Progress], object]) -> "Result":
    scored: tuple[Scored, ...] = ()
    for event in events:
        if isinstance(event, Evaluated):
            scored = event.scored if event.phase.startswith("round") else ()
        elif isinstance(event, RoundDone):
            rows = _rows(out, scored) if scored else []
            record = event.record
            on_round(Progress(record.round + 1, run.rounds, record.loss.value, event.wall_s, event.params, rows))
            scored = ()
    return Result(out)


def _rows(out: Path, scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """Return the scores of a round as the scores of a run are told."""
    found = outcome(RunDirectory.open(out))
    now = replace(found, results={"base": found.results["base"], "final": tuple(scored)})
    return list(_flat(show_record(now)["rows"], ("final",)))


def _flat(rows: Iterable[Mapping[str, Any]], phases: Sequence[str]) -> Iterator[dict[str, Any]]:
    for row in rows:
        for phase in phases:
            if row.get(phase):
                told = {"questions": row["questions"], "score": row["score"], "phase": phase}
                yield told | row[phase] | {"n": row["n"]}


@dataclass(frozen=True)
class Result:
    """What a run directory holds, in records that pandas reads; of any run, whoever started it."""

    path: Path

    @property
    def scores(self) -> list[dict[str, Any]]:
        """Scores with 95 % intervals, a row for each set of questions, score and phase (base, final)."""
        return list(_flat(show_record(self._found)["rows"], ("base", "tuned", "final")))

    @property
    def clients(self) -> list[dict[str, Any]]:
        """Every client's own score, a row for each."""
        told = show_record(self._found)["clients"]
        return [
            {"client": client, "questions": one["questions"], "score": one["score"], "value": value}
            for one in told
            for client, value in one["values"].items()
        ]

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """A row for each round: training loss, learning rate, size of the step and what else is told of it."""
        rows: dict[tuple[str, int], dict[str, Any]] = {}
        for line in RunDirectory.open(self.path).lines("metrics.jsonl"):
            if line["phase"] == "train":
                row = rows.setdefault((line["leg"], line["round"]), {"round": line["round"] + 1, "leg": line["leg"]})
                row[line["name"]] = line["total"] / line["weight"] if line["weight"] else math.nan
        return list(rows.values())

    @property
    def answers(self) -> list[dict[str, Any]]:
        """Every scored question: prompt, reference, answer, tags and scores, as far as the run keeps texts."""
        return [
            {"phase": phase, "set": one.set, "index": one.index, "owner": one.owner, **one.tags}
            | {"prompt": one.prompt, "reference": one.reference, "prediction": one.prediction}
            | {name: mean.value for name, mean in one.scores.items()}
            for phase, scored in self._found.results.items()
            for one in scored
        ]

    @property
    def adapter(self) -> Path:
        """The folder of the shared adapter, for `peft.PeftModel.from_pretrained`."""
        return self.path / "adapter"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The resolved settings."""
        return self._found.settings

    def export(self, out: str | Path, *, form: Form = "adapter", base: str = "") -> Path:
        """Write the result for other tools, as `fedloom export` does."""
        export(self.path, Path(out), form=form, base=base, scores=card_scores(self._found))
        return Path(out)

    def __str__(self) -> str:
        """Return the table that `fedloom show` prints."""
        return show_table(self._found).markdown()

    @property
    def _found(self) -> Outcome:
        return outcome(RunDirectory.open(self.path))


def compare(*results: Result) -> list[dict[str, Any]]:
    """Return the paired differences of the first run to each other one, with 95 % intervals, a row each."""
    return compare_record(compared([outcome(RunDirectory.open(one.path)) for one in results]))["differences"]
