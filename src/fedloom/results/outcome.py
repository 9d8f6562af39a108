"""What a run directory holds: what kind of run it was, its scored examples and its cost, everything checked."""

import contextlib
import hashlib
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from fedloom.base import config
from fedloom.base.errors import ConfigError, FedloomError, MissingFileError, RunError
from fedloom.base.mean import Mean
from fedloom.contracts.arrangement import Arrangement
from fedloom.evaluation.calibration import CALIBRATION
from fedloom.evaluation.held_out import Scored, score_table
from fedloom.evaluation.statistics import ScoreTable
from fedloom.runs.accounts import stated_privacy
from fedloom.runs.directory import RunDirectory
from fedloom.runs.tuning import arrangement_of, modernised, with_plugins

__all__ = ["Asked", "Choice", "Outcome", "outcome", "reading"]


@dataclass(frozen=True)
class Asked:
    """Chooses the questions of a set that have all of the tags."""

    set: str
    tags: tuple[tuple[str, str], ...] = ()

    def __call__(self, run: "Outcome") -> "Outcome":
        """Return the part of a run that answers them."""
        return run.kept(
            lambda one: one.set == self.set and all(one.tags.get(name) == value for name, value in self.tags)
        )


@dataclass(frozen=True)
class Outcome:
    """A run's record and its results before and after training."""

    path: str
    label: str
    """What kind of run it is, the seed left out."""
    seed: int
    resamples: int
    """Resamples of an interval."""
    complete: bool
    results: Mapping[str, tuple[Scored, ...]]
    """Scored examples by phase: `base`, `final`, and `tuned`, which is before the last refinement."""
    cost: Mapping[str, float]
    privacy: Mapping[str, Any]
    """What was spent of the clients' privacy; empty where nothing protects it."""
    card: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The partition card with `data_sha256` of all examples and the `base_id` of the base weights."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The resolved run file."""
    corpus: Mapping[str, Mapping[str, Mean]] = field(default_factory=dict[str, Mapping[str, Mean]])
    """Scores of all answers to the common test together by name and phase, weighing as many texts."""
    refined: Mapping[str, float] = field(default_factory=dict[str, float])
    """What refinements did at the server, summed over the run, by refinement and name."""

    def part(self, where: "Choice") -> "Outcome":
        """Return the part of the run that a number is over; asked again, the same object."""
        if where not in self._parts:
            self._parts[where] = where(self)
        return self._parts[where]

    def kept(self, wanted: Callable[[Scored], bool]) -> "Outcome":
        """Return the run with the wanted scored examples alone."""
        return replace(self, results={phase: tuple(filter(wanted, told)) for phase, told in self.results.items()})

    def table(self, score: str, phase: str = "final") -> ScoreTable:
        """Return a score of a phase by owner and question; empty where it was not told."""
        if (score, phase) not in self._tables:
            self._tables[score, phase] = score_table(self.results.get(phase, ()), score, self.cluster)
        return self._tables[score, phase]

    @property
    def cluster(self) -> str:
        """The tag of questions about one thing; older runs do not name it."""
        return str(self.settings.get("evaluation", {}).get("cluster", "fact"))

    @property
    def pooled(self) -> bool:
        """Whether all data lay in one place."""
        return arrangement_of(self.settings).pooled

    @property
    def data_id(self) -> str:
        """Equal for two runs whose clients have the same data."""
        return str(self.card.get("data_sha256", ""))

    def asked(self, phase: str) -> str:
        """Return a digest of all questions; clients' own count as others where their data do."""
        told = self.questions(phase)
        owned = any("client" in one.tags for one in self.results[phase])
        return _digest(
            [*(f"{name} {number} {text}" for (name, number), text in sorted(told.items())), self.data_id * owned]
        )

    def questions(self, phase: str) -> Mapping[tuple[str, int], str]:
        """Return a digest of each question; of a client's own only whose it is, for its text stays with it."""
        if phase not in self._digests:
            texts = {
                (one.set, one.index): (one.prompt, one.reference, one.tags.get("client", ""))
                for one in self.results[phase]
            }
            self._digests[phase] = {key: _digest(text) for key, text in texts.items()}
        return self._digests[phase]

    # A suite compares every pair of methods on the same questions: what a run has to say is worked out once.

    @cached_property
    def _parts(self) -> dict["Choice", "Outcome"]:
        return {}

    @cached_property
    def _tables(self) -> dict[tuple[str, str], ScoreTable]:
        return {}

    @cached_property
    def _digests(self) -> dict[str, dict[tuple[str, int], str]]:
        return {}


Choice = Callable[[Outcome], Outcome]
"""Takes the part of a run that a number is over; two that choose alike should be equal, for parts are kept by them."""


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def outcome(directory: RunDirectory) -> Outcome:
    """Return what a run directory holds; a damaged file is refused by its name and line."""
    where = str(directory.path / "run.toml")
    try:
        table = modernised(config.parse(directory.read("run.toml"), where))
    except FedloomError as error:
        raise RunError(str(error)) from error
    with contextlib.suppress(ConfigError):  # what it computed can be read without the programs that did
        with_plugins(table, directory.path)
    seed, resamples = _entry(table, "seed", int, where), _entry(table, "evaluation.resamples", int, where)
    results = _results(directory)
    if "final" in results and "base" not in results:
        raise RunError(f"{directory.path / 'results.jsonl'}: has no results of phase 'base'; lines were lost.")
    return Outcome(
        path=str(directory.path),
        label=_label(table, where),
        seed=seed,
        resamples=resamples,
        complete=directory.complete,
        results=results,
        cost=_cost(directory),
        privacy=stated_privacy(directory, table),
        card=_card(directory),
        settings=table,
        corpus=_corpus(directory, table, calibrated=any("confidence" in one.scores for one in results.get("base", ()))),
        refined=_refined(directory, table),
    )


def _label(table: Mapping[str, Any], where: str) -> str:
    arrangement = _arrangement(table, where)
    rule, server = _entry(table, "rule.name", str, where), _entry(table, "server_opt.name", str, where)
    if arrangement.baseline:
        return arrangement.name
    settings = table["server_opt"]
    kind = f"{server} with momentum" if settings.get("momentum") else server
    label = _METHODS.get((rule, kind), rule if kind == "sgd" else f"{rule}+{kind}")
    label += f" {settings['variant']}" if "variant" in settings and kind != "sgd" else ""
    return " ".join([*filter(None, [arrangement.label()]), label, *_additions(table, where)])


_METHODS = {
    ("plain", "sgd"): "FedAvg",
    ("plain", "sgd with momentum"): "FedAvgM",
    ("plain", "adagrad"): "FedAdagrad",
    ("plain", "yogi"): "FedYogi",
    ("plain", "adam"): "FedAdam",
    ("prox", "sgd"): "FedProx",
    ("scaffold", "sgd"): "SCAFFOLD",
}
"""Names of published methods by rule and server step."""


def _arrangement(table: Mapping[str, Any], where: str) -> Arrangement:
    _entry(table, "protocol.name", str, where)
    try:
        return arrangement_of(table)
    except ConfigError as error:
        raise RunError(f"{where}: {error}") from error


def _additions(table: Mapping[str, Any], where: str) -> list[str]:
    """Return what a federated run has beyond rule and server step."""
    aggregator, codec = (_entry(table, f"{name}.name", str, where) for name in ("aggregator", "codec"))
    added = [aggregator] * (aggregator != "mean") + [codec] * (codec != "float32")
    added += [str(stage["name"]) for key in ("prepare", "refine") for stage in table.get(key, ())]
    added += [f"under {attack['name']}"] if (attack := table.get("attack")) else []
    privacy = table["privacy"]
    if privacy.get("name", "none") != "none":
        noise = privacy.get("noise_multiplier")
        strength = f"noise={noise}" if noise else f"epsilon={privacy.get('epsilon', '?')}"
        added.append(f"{privacy['name']} {privacy.get('unit', '')} {strength}")
    return added


def _entry(table: Mapping[str, Any], path: str, kind: type[Any], where: str) -> Any:
    value = config.value_at(table, path)
    if type(value) is not kind:
        found = "it is missing" if value is None else f"found {value!r}"
        raise RunError(f"{where}: {path}: {found}, allowed is the resolved run as fedloom wrote it; restore the file.")
    return value


def _results(directory: RunDirectory) -> dict[str, tuple[Scored, ...]]:
    results: dict[str, dict[tuple[str, str, int], Scored]] = {}
    for number, record in enumerate(directory.lines("results.jsonl"), 1):
        where = f"{directory.path / 'results.jsonl'}: line {number}"
        one, phase = _scored(record, where), record["phase"]
        key = (one.owner, one.set, one.index)
        if key in results.setdefault(phase, {}):
            raise RunError(f"{where}: repeats question {one.index} of '{one.set}'; the run directory is damaged.")
        results[phase][key] = one
    return {phase: tuple(scored.values()) for phase, scored in results.items()}


def _scored(record: Any, where: str) -> Scored:
    texts = ("set", "owner", "phase", "prompt", "reference", "prediction")
    fits = isinstance(record, dict) and all(type(record.get(name)) is str for name in texts)
    fits = fits and type(record.get("index")) is int
    if not fits or not all(isinstance(record.get(name), dict) for name in ("tags", "scores")):
        raise RunError(f"{where} is no scored example; the run directory is damaged.")
    pairs = record["scores"].values()
    if not all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair)) for pair in pairs):
        raise RunError(f"{where}: a score is no pair of total and weight; the run directory is damaged.")
    if not all(isinstance(tag, str) for tag in record["tags"].values()):
        raise RunError(f"{where}: a tag is no text; the run directory is damaged.")
    return Scored.from_record(record)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _corpus(directory: RunDirectory, table: Mapping[str, Any], *, calibrated: bool) -> dict[str, dict[str, Mean]]:
    """Return the corpus metrics before and after training; of several models their mean."""
    names = [metric["name"] for metric in table["evaluation"].get("corpus_metrics", ())] + [CALIBRATION] * calibrated
    found: dict[str, dict[str, Mean]] = {name: {} for name in names}
    for line in _numbers(directory, "metrics.jsonl", (), ("total", "weight")) if names else ():
        told, phase = str(line.get("name", "")).removeprefix("test/"), line.get("phase")
        if told in found and phase in ("base", "tuned", "final"):
            found[told][phase] = found[told].get(phase, Mean()) + Mean(line["total"], line["weight"])
    return found


def _refined(directory: RunDirectory, table: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, Mean] = {}
    for line in _numbers(directory, "metrics.jsonl", (), ("total", "weight")) if table.get("refine") else ():
        if line.get("phase") == "refine":
            told = Mean(line["total"], line["weight"] if line.get("mean") else 0.0)
            found[line["name"]] = found.get(line["name"], Mean()) + told
    return {name: told.value if told.weight else told.total for name, told in found.items()}


def _cost(directory: RunDirectory) -> dict[str, float]:
    metrics = _numbers(directory, "metrics.jsonl", ("wall_s",), ())
    ledger = _numbers(directory, "ledger.jsonl", (), ("bytes", "download_bytes"))
    kept = [line["total"] for line in metrics if line.get("name") == "kept_round"]
    return {
        "rounds": float(sum(1 for line in metrics if line.get("name") == "train_loss")),
        "upload_bytes": float(sum(line.get("bytes", 0) for line in ledger)),
        "download_bytes": float(sum(line.get("download_bytes", 0) for line in ledger)),
        "wall_s": float(max((line["wall_s"] for line in metrics), default=0.0)),
        **({"kept_round": kept[0]} if len(kept) == 1 else {}),
    } | _counts(directory)


def _counts(directory: RunDirectory) -> dict[str, float]:
    """Return how many examples, training and held-out, were cut, empty or too long to learn from."""
    with reading(directory, "partition.json"):
        encoded = _card(directory).get("encoded", {}).values()
        cut = {"truncated": float(sum(counts["truncated"] for counts in encoded))}
        # What a task of another kind, or an older run, did not count did not happen.
        others = ("empty_answers", "prompts_too_long", "same_answers")
        return cut | {name: float(sum(counts.get(name, 0) for counts in encoded)) for name in others}


def _card(directory: RunDirectory) -> dict[str, Any]:
    """Return the partition card; empty if the run was stopped before its data were divided."""
    if not (directory.path / "partition.json").is_file():
        return {}
    return directory.table("partition.json")


@contextlib.contextmanager
def reading(directory: RunDirectory, file: str) -> Generator[None]:
    """Refuse a file of another shape than the block takes it for by its name."""
    try:
        yield
    except MissingFileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        where = f"{directory.path / file}: is not what fedloom wrote ({error})"
        raise RunError(f"{where}; the run directory is damaged.") from error


def _numbers(
    directory: RunDirectory, log: str, needed: Sequence[str], allowed: Sequence[str]
) -> Sequence[Mapping[str, Any]]:
    """Return the lines of a log, in each of which the `needed` and, where they occur, the `allowed` are numbers."""
    records = directory.lines(log)
    for number, line in enumerate(records, 1):
        _check_numbers(line, needed, allowed, f"{directory.path / log}: line {number}")
    return records


def _check_numbers(line: Any, needed: Sequence[str], allowed: Sequence[str], where: str) -> None:
    if not isinstance(line, dict) or not line:
        raise RunError(f"{where} is no record; the run directory is damaged.")
    wrong = [name for name in (*needed, *allowed) if not _is_number(line.get(name, "" if name in needed else 0))]
    if wrong:
        raise RunError(f"{where}: {wrong[0]} is no number; the run directory is damaged.")
