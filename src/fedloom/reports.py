"""What a run directory says, as tables: one run by itself, several runs side by side and in pairs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedloom import config
from fedloom.errors import RunError
from fedloom.evaluation import Scored, group_means, score_table
from fedloom.runs import RunDirectory
from fedloom.statistics import Interval, bootstrap, student_interval, worst_share

__all__ = ["Comparison", "Outcome", "Table", "compare", "compare_table", "outcome", "show_table"]


@dataclass(frozen=True)
class Table:
    """A titled table of texts."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [f"## {self.title}", "", _line(self.header), _line(["---"] * len(self.header))]
        return "\n".join([*lines, *map(_line, self.rows), ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Outcome:
    """A run's record and its results before and after training."""

    path: str
    table: Mapping[str, Any]
    complete: bool
    results: Mapping[str, tuple[Scored, ...]]
    """Scored examples by phase: `base`, `final`."""
    cost: Mapping[str, float]

    @property
    def label(self) -> str:
        """What kind of run it is, the seed left out."""
        if self.table["protocol"] != "federated":
            return str(self.table["protocol"])
        server = self.table["server_opt"]
        plain = server["name"] == "sgd" and server["momentum"] == 0
        return str(self.table["rule"]["name"]) + ("" if plain else f"+{server['name']}")

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.table["seed"])

    @property
    def resamples(self) -> int:
        """Resamples of an interval."""
        return int(self.table["evaluation"]["resamples"])


def outcome(directory: RunDirectory) -> Outcome:
    """Return what a run directory holds."""
    table = config.parse(directory.read("run.toml"), str(directory.path / "run.toml"))
    results: dict[str, list[Scored]] = {}
    for record in directory.lines("results.jsonl"):
        results.setdefault(record["phase"], []).append(Scored.from_record(record))
    phases = {phase: tuple(scored) for phase, scored in results.items()}
    return Outcome(str(directory.path), table, directory.complete, phases, _cost(directory))


def _cost(directory: RunDirectory) -> dict[str, float]:
    ledger, metrics = directory.lines("ledger.jsonl"), directory.lines("metrics.jsonl")
    return {
        "rounds": float(sum(1 for line in metrics if line["name"] == "train_loss")),
        "upload_bytes": float(sum(line.get("bytes", 0) for line in ledger)),
        "download_bytes": float(sum(line.get("download_bytes", 0) for line in ledger)),
        "wall_s": max((line["wall_s"] for line in metrics), default=0.0),
    }


Selection = Callable[[Scored], bool]


def _selections(scored: Sequence[Scored]) -> dict[str, Selection]:
    """Return the groups of questions to report: every set, and every domain in it where there are several."""
    groups: dict[str, Selection] = {}
    for name in dict.fromkeys(one.set for one in scored):
        groups[name] = lambda one, name=name: one.set == name
        domains = dict.fromkeys(one.tags["domain"] for one in scored if one.set == name and "domain" in one.tags)
        for domain in domains if len(domains) > 1 else ():
            groups[f"{name}/{domain}"] = lambda one, name=name, domain=domain: (
                one.set == name and one.tags.get("domain") == domain
            )
    return groups


def _interval(scored: Sequence[Scored], score: str, resamples: int) -> Interval:
    total_CN, weight_CN = score_table(scored, score)
    return bootstrap(total_CN, weight_CN, resamples=resamples)


def show_table(found: Outcome) -> Table:
    """Return base and final scores of one run with 95 % intervals over questions and clients' models."""
    rows: list[tuple[str, ...]] = []
    final = found.results.get("final", ())
    scores = list(final[0].scores) if final else []
    for group, chosen in _selections(final).items():
        for score in scores:
            cells = [
                f"{_interval([one for one in found.results[phase] if chosen(one)], score, found.resamples):.3f}"
                for phase in ("base", "final")
            ]
            rows.append((group, score, *cells, str(len({one.index for one in final if chosen(one)}))))
    rows += _client_rows(final, scores)
    return Table(f"{found.label}, seed {found.seed}", ("questions", "score", "base", "final", "n"), tuple(rows))


def _client_rows(final: Sequence[Scored], scores: Sequence[str]) -> list[tuple[str, ...]]:
    """Return how the clients fare on their own held-out examples: the mean over clients and the worst decile."""
    own = [one for one in final if one.set == "validation"]
    rows: list[tuple[str, ...]] = []
    for score in scores if own else ():
        means = [mean.value for mean in group_means(own, score, lambda one: one.tags["client"]).values() if mean.weight]
        sign = -1.0 if score == "loss" else 1.0
        worst = sign * worst_share([sign * value for value in means])
        rows.append(("per client", score, "", f"mean {np.mean(means):.3f}, worst decile {worst:.3f}", str(len(means))))
    return rows


@dataclass(frozen=True)
class Comparison:
    """Several kinds of run, each with one or more seeds."""

    groups: Mapping[str, Mapping[int, Outcome]]

    @property
    def labels(self) -> list[str]:
        """The kinds, in the order given."""
        return list(self.groups)


def compare(outcomes: Sequence[Outcome]) -> Comparison:
    """Return runs grouped by kind; unfinished runs and two of the same kind and seed are refused."""
    groups: dict[str, dict[int, Outcome]] = {}
    for found in outcomes:
        if "final" not in found.results:
            raise RunError(f"{found.path}: the run is not complete; `fedloom resume {found.path}` first.")
        seeds = groups.setdefault(found.label, {})
        if found.seed in seeds:
            raise RunError(
                f"{found.path}: another '{found.label}' run of seed {found.seed} is {seeds[found.seed].path}."
            )
        seeds[found.seed] = found
    return Comparison(groups)


def _questions(found: Outcome, phase: str) -> dict[tuple[str, int], str]:
    return {(one.set, one.index): one.prompt + one.reference for one in found.results[phase]}


def _value(found: Outcome, chosen: Selection, score: str, phase: str = "final") -> Interval:
    return _interval([one for one in found.results[phase] if chosen(one)], score, found.resamples)


def compare_table(compared: Comparison) -> list[Table]:
    """Return the scores of all kinds side by side, and each kind's paired difference to the first.

    One seed: bootstrap intervals over questions and clients. Several: Student's interval over the seeds.
    """
    first = next(iter(compared.groups[compared.labels[0]].values()))
    final = first.results["final"]
    side: list[tuple[str, ...]] = []
    pairs: list[tuple[str, ...]] = []
    for group, chosen in _selections(final).items():
        for score in final[0].scores:
            cells = [f"{_over_seeds(seeds, chosen, score):.3f}" for seeds in compared.groups.values()]
            base = f"{_over_seeds(compared.groups[compared.labels[0]], chosen, score, 'base'):.3f}"
            side.append((group, score, base, *cells))
            pairs += _pair_rows(compared, group, chosen, score)
    labels = [f"{label} ({_seeds(seeds)})" for label, seeds in compared.groups.items()]
    tables = [Table("Scores with 95 % intervals", ("questions", "score", "base", *labels), tuple(side))]
    if pairs:
        header = ("questions", "score", "pair", "difference")
        tables.append(Table("Paired differences with 95 % intervals", header, tuple(pairs)))
    return tables


def _seeds(seeds: Mapping[int, Outcome]) -> str:
    return f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {next(iter(seeds))}"


def _over_seeds(seeds: Mapping[int, Outcome], chosen: Selection, score: str, phase: str = "final") -> Interval:
    values = [_value(found, chosen, score, phase) for found in seeds.values()]
    return values[0] if len(values) == 1 else student_interval([value.value for value in values])


def _pair_rows(compared: Comparison, group: str, chosen: Selection, score: str) -> list[tuple[str, ...]]:
    first = compared.labels[0]
    rows: list[tuple[str, ...]] = []
    for label in compared.labels[1:]:
        common = [seed for seed in compared.groups[first] if seed in compared.groups[label]]
        pairs = [(compared.groups[first][seed], compared.groups[label][seed]) for seed in common]
        if pairs:
            difference = _difference(pairs, chosen, score)
            rows.append((group, score, f"{first} - {label}", f"{difference:+.3f}"))
    return rows


def _difference(pairs: Sequence[tuple[Outcome, Outcome]], chosen: Selection, score: str) -> Interval:
    for one, other in pairs:
        if _questions(one, "final") != _questions(other, "final"):
            raise RunError(
                f"{one.path} and {other.path} were asked different questions: their scores cannot be paired."
            )
    differences = [_paired(one, other, chosen, score) for one, other in pairs]
    if len(differences) == 1:
        return differences[0]
    return student_interval([difference.value for difference in differences])


def _paired(one: Outcome, other: Outcome, chosen: Selection, score: str) -> Interval:
    """Return the difference of means, question by question; where clients have models of their own, the mean's."""
    tables = [score_table([s for s in found.results["final"] if chosen(s)], score) for found in (one, other)]
    (total_a, weight_a), (total_b, weight_b) = tables
    if len(total_a) == 1 or len(total_b) == 1:
        rows = max(len(total_a), len(total_b))
        known = np.broadcast_to(weight_a, (rows, weight_a.shape[1])) * np.broadcast_to(
            weight_b, (rows, weight_b.shape[1])
        )
        total = np.where(known > 0, total_a - total_b, 0.0)
        return bootstrap(total, np.where(known > 0, weight_a, 0.0), resamples=one.resamples)
    if total_a.shape != total_b.shape:
        raise RunError(f"{one.path} and {other.path} have models of different clients: their scores cannot be paired.")
    return bootstrap(total_a - total_b, weight_a, resamples=one.resamples)
