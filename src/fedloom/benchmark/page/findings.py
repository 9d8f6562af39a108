"""What a page says of a study's scores: its summary and claims, and who is best of those that leave data in place."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from fedloom.benchmark.claims import Conclusion
from fedloom.benchmark.page.words import plural
from fedloom.benchmark.ranking import ALL, PairRow, RankRow, gap
from fedloom.benchmark.stated import BASE
from fedloom.benchmark.suite import SuiteOutcome
from fedloom.benchmark.summary import ClientRow, Summary
from fedloom.evaluation.intervals import verdict
from fedloom.results.outcome import Outcome
from fedloom.results.per_client import direction, per_client

__all__ = ["Findings", "OwnScores"]

_CENTRALISED = "centralised"
_OWN = ("validation, own", "test, own")  # where a client's own questions stand in a summary, the best place first


@dataclass(frozen=True)
class OwnScores:
    """The clients' scores on their own examples, of one data set."""

    by_method: Mapping[str, Mapping[str, float]]
    """By method (the base is one) and client: the mean over `seeds`."""
    seeds: tuple[int, ...]
    """The same for all methods and the base; the first alone where each seed has other clients."""
    alike: bool
    """Whether a name means the same client on every seed."""

    @property
    def of(self) -> str:
        """Which seeds a client's number is of."""
        seeds = ", ".join(map(str, self.seeds))
        return f"seed {seeds}" if len(self.seeds) == 1 else f"mean over seeds {seeds}"


@dataclass(frozen=True)
class Findings:
    """A study with at least one finished run, and everything that was found in its scores."""

    told: Conclusion

    @property
    def study(self) -> SuiteOutcome:
        """The runs."""
        return self.told.study

    @property
    def summary(self) -> Summary:
        """What was estimated of them."""
        return self.told.summary

    @cached_property
    def ranks(self) -> Mapping[str, Sequence[RankRow]]:
        """By data set and, of several, by their mean under the name ALL, the first one; the best method first."""
        rows = sorted(self.summary.ranks, key=lambda row: (math.isnan(row.rank.value), row.rank.value, row.method))
        return {
            data: [row for row in rows if row.data == data]
            for data in dict.fromkeys(r.data for r in self.summary.ranks)
        }

    @cached_property
    def best(self) -> str:
        """The first of the ranking that leaves the data where they are; of centralised runs alone the first."""
        order = [row.method for row in self.ranks[self.whole]] if self.ranks else [""]
        return next((method for method in order if not self.is_centralised(method)), order[0])

    @cached_property
    def gaps(self) -> Mapping[str, Sequence[PairRow]]:
        """The best less all others, or less its base if there is no other, in the order of the ranks."""
        return {data: _gaps(self, rows) for data, rows in self.ranks.items()}

    @cached_property
    def clients(self) -> Mapping[str, OwnScores]:
        """By data set."""
        return {data: _clients(self.study, self.fairness[data]) for data in self.study.data}

    @cached_property
    def fairness(self) -> Mapping[str, Sequence[ClientRow]]:
        """What these scores tell of fairness, by data set, a row per method."""
        return {data: _own(self.summary, data) for data in self.study.data}

    @property
    def whole(self) -> str:
        """Where the methods are ranked on the whole: ALL, or the only data set; "" if nowhere."""
        return next(iter(self.ranks), "")

    @property
    def single(self) -> bool:
        """Whether there is nothing to compare with but the base."""
        return len(self.study.methods) == 1

    @property
    def unranked(self) -> str:
        """Why nothing is ranked."""
        study = self.study
        if any(len(study.runs(data, method)) == len(study.seeds) for data in study.data for method in study.methods):
            return "no method has a score of which more or less is better on each of its runs"
        ended = len(study.cells)
        return (
            f"{ended} of {plural(ended + len(study.missing), 'run')} have ended, and no method is through with all "
            "of its own; `fedloom bench` goes on with a suite, `fedloom resume` with a run"
        )

    def first(self, data: str) -> frozenset[str]:
        """Return the methods, ties included, that come first on a data set of those that leave the data in place."""
        rows = [row for row in self.ranks[data] if not self.is_centralised(row.method)] or self.ranks[data]
        return frozenset(row.method for row in rows if row.value.value == rows[0].value.value)

    def score(self, data: str) -> str:
        """Return what methods are ranked by on a data set, or on the mean of data sets."""
        return self.summary.headline[self.study.alike[0] if data == ALL else data]

    def sign(self, data: str) -> int:
        """Return 1 where more of that score is better, -1 where less is."""
        return direction(self.score(data)) or 1

    @property
    def lead(self) -> RankRow:
        """Where the best method stands on the whole."""
        return next(row for row in self.ranks[self.whole] if row.method == self.best)

    @cached_property
    def pairs(self) -> Mapping[tuple[str, str, str], PairRow]:
        """Each method less each other by data set and both names."""
        both = [turn for row in self.summary.pairs for turn in (row, row.turned())]
        return {(row.data, row.first, row.second): row for row in both}

    def ordered(self, data: str) -> tuple[str, Sequence[str]]:
        """Return a method, the best if it is told, and a data set's clients by their score with it, the worst first."""
        table = self.clients[data].by_method
        chosen = self.best if self.best in table else list(table)[-1]
        return chosen, sorted(table[chosen], key=lambda client: (self.sign(data) * table[chosen][client], client))

    @property
    def several(self) -> bool:
        """Whether fairness is a mean over several seeds anywhere."""
        return any(len(row.clients) > 1 for rows in self.fairness.values() for row in rows)

    @cached_property
    def centralised(self) -> Sequence[str]:
        """The methods that move the data to one place."""
        return [method for method in self.study.methods if self.is_centralised(method)]

    def is_centralised(self, method: str) -> bool:
        """Return whether a method moves the data to one place."""
        return any(one.label == _CENTRALISED for (_, name, _), one in self.study.cells.items() if name == method)


def _gaps(found: Findings, rows: Sequence[RankRow]) -> list[PairRow]:
    study, best, data, score = found.study, found.best, rows[0].data, rows[0].score
    if found.single:
        one = gap(study, study.alike if data == ALL else [data], best, BASE)
        return [PairRow(data, score, best, BASE, one, math.nan, math.nan, verdict(one, direction(score)))]
    return [one for row in rows if (one := found.pairs.get((data, best, row.method)))]


def _own(summary: Summary, data: str) -> list[ClientRow]:
    """Return how the clients fare on questions of their own, by the headline score."""
    rows = [row for row in summary.clients if row.data == data and row.score == summary.headline[data]]
    questions = next((name for name in _OWN if any(row.questions == name for row in rows)), "")
    return [row for row in rows if row.questions == questions]


def _clients(study: SuiteOutcome, rows: Sequence[ClientRow]) -> OwnScores:
    alike = all(_same_clients(list(study.runs(row.data, row.method).values())) for row in rows)
    seeds = _shown_seeds(study, rows, alike=alike)
    found = {row.method: _mean([row.clients[seed] for seed in seeds if seed in row.clients]) for row in rows}
    found = {method: by_client for method, by_client in found.items() if by_client}
    base = _mean([_base(study, row, seed) for row in rows[:1] for seed in seeds])
    return OwnScores({BASE: base, **found} if base and found else found, seeds, alike)


def _same_clients(runs: Sequence[Outcome]) -> bool:
    """Return whether runs of several seeds are about the same clients.

    They are where all data are equal, or where one source was divided alike and only what is held out differs.
    """
    hashes = {run.card.get("data_sha256") for run in runs}
    if len(hashes) == 1 and None not in hashes:
        return True
    names = ("n_examples", "sha256", "counts", "tags", "length_characters")
    divided = [[run.settings.get("data"), *map(run.card.get, names)] for run in runs]
    return all(one == divided[0] for one in divided)


def _shown_seeds(study: SuiteOutcome, rows: Sequence[ClientRow], *, alike: bool) -> tuple[int, ...]:
    """Return the seeds that most methods have: what is side by side has to be of the same seeds."""
    having = {seed: sum(seed in row.clients for row in rows) for seed in study.seeds}
    most = max(having.values(), default=0)
    seeds = tuple(seed for seed, count in having.items() if count == most and count)
    return seeds if alike and most == len(rows) else seeds[:1]


def _mean(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return each client's score, the mean over the seeds that have it."""
    values: dict[str, list[float]] = {}
    for by_client in seeds:
        for client, number in by_client.items():
            values.setdefault(client, []).append(number)
    return {client: sum(numbers) / len(numbers) for client, numbers in values.items()}


def _base(study: SuiteOutcome, row: ClientRow, seed: int) -> dict[str, float]:
    """Return the clients' own scores before training of a seed, of the first run that tells them: all tell the same."""
    for method in study.methods:
        run = study.runs(row.data, method).get(seed)
        before = per_client(replace(run, results={"final": run.results.get("base", ())})) if run else []
        for one in before:
            if (one.questions, one.score) == (row.questions, row.score):
                return dict(one.values)
    return {}
