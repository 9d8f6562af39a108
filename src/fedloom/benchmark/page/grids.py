"""What the page draws and lists of scores: the forest plot, tables of groups of questions and of scores, curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fedloom.benchmark.page import figures, logs
from fedloom.benchmark.page.findings import Findings
from fedloom.benchmark.page.words import bounds, called, score_name, value
from fedloom.benchmark.ranking import ALL, mean_value
from fedloom.benchmark.stated import BASE
from fedloom.evaluation.intervals import Estimate, Interval
from fedloom.results.estimates import FACTS, crossed
from fedloom.results.per_client import direction

__all__ = ["Grid", "curves", "forest", "grids", "scores"]


@dataclass(frozen=True)
class Grid:
    """Values by row and column of a table about a data set."""

    data: str
    heads: Sequence[str]
    """What the columns are called."""
    groups: Sequence[str]
    """The columns."""
    rows: Mapping[str, Mapping[str, Interval | None]]
    caption: str = ""

    def shade(self, number: float) -> int:
        """Return the place of a value from the lowest of the table to the highest, 0 to 9."""
        values = [one.value for row in self.rows.values() for one in row.values() if one]
        low, high = min(values), max(values)
        return min(9, int(10 * (number - low) / (high - low))) if high > low else 0


def grids(found: Findings, every: Sequence[Estimate], *, facts: bool = False) -> list[Grid]:
    """Return a table for each data set: methods, and whose models answer, by the group of the question.

    Groups have their numbers of questions beside them, where they are not whose `facts` are asked for.
    """
    made: list[Grid] = []
    for data in found.study.data:
        rows = [row for row in every if row["data"] == data]
        counts = {row["group"]: row.n_questions for row in rows}
        groups = list(FACTS if facts else counts)
        heads = groups if facts else [f"{group} ({count})" for group, count in counts.items()]
        cells = crossed((_answering(row, facts=facts), row["group"], row.interval) for row in rows)
        made += [Grid(data, heads, groups, cells)] if rows else []
    return made


def _answering(row: Estimate, *, facts: bool) -> str:
    return row["method"] if facts or row["models"] == "all" else f"{row['method']} ({row['models']})"


def scores(found: Findings) -> list[Grid]:
    """Return all scores of each data set and set of questions, before training and of each method."""
    made: list[Grid] = []
    for data, questions in dict.fromkeys((row.data, row.questions) for row in found.summary.scores):
        rows = [row for row in found.summary.scores if (row.data, row.questions) == (data, questions)]
        base = [(BASE, row.score, row.base) for row in reversed(rows) if row.base]  # of the first method that tells it
        cells = {BASE: {}, **crossed([*base, *((row.method, row.score, row.final) for row in rows)])}
        names = list(dict.fromkeys(row.score for row in rows))
        heads = [score_name(score) + {1: " ↑", -1: " ↓", 0: ""}[direction(score)] for score in names]
        n = max(row.n_questions for row in rows)
        made.append(Grid(data, heads, names, cells, f"{data}: {n} {questions} questions"))
    return made


def forest(found: Findings) -> tuple[Markup, str]:
    """Return the forest plot of the ranks, and what it shows in words; nothing where nothing is ranked."""
    if not found.ranks:
        return Markup(), ""
    panels = {called(data): [(row.method, row.value) for row in rows] for data, rows in found.ranks.items()}
    base = {called(data): interval for data, interval in _base(found).items() if data in found.ranks}
    if found.single:
        panels = {name: [*ranked, (BASE, base[name])] for name, ranked in panels.items() if name in base}
    better = {1: "more is better", -1: "less is better"}
    drawn = figures.forest(
        "forest",
        panels,
        best={called(data): found.first(data) for data in found.ranks},
        axes={called(data): f"{score_name(found.score(data))}, {better[found.sign(data)]}" for data in found.ranks},
        reference={} if found.single else {name: interval.value for name, interval in base.items()},
    )
    return drawn, "; ".join(f"{who} {value(i.value)}, {bounds(i)}" for who, i in panels[called(found.whole)][:12])


def _base(found: Findings) -> dict[str, Interval]:
    """Return the score before training by data set and on their mean, of the first method that tells it.

    It is the same for all methods.
    """
    study, base = found.study, dict[str, Interval]()
    for row in found.summary.scores:
        if row.questions == "test" and row.score == found.summary.headline[row.data] and row.base:
            base.setdefault(row.data, row.base)
    if ALL in found.ranks and all(data in base for data in study.alike):
        # The first one is ranked, so none of its runs is missing.
        base[ALL] = mean_value(study, study.alike, found.ranks[ALL][0].method, "base")
    return base


def curves(found: Findings) -> list[tuple[Markup | None, str]]:
    """Return curves of training loss and held-out scores over rounds with their names; None of too few points."""
    study = found.study
    read = {key: logs.curves(one) for key, one in study.cells.items()}
    wanted = {"train_loss": ("training loss", 2)}
    for score in dict.fromkeys([*found.summary.headline.values(), "loss"]):
        wanted[f"test/{score}"] = f"{score_name(score)} on the common test", 3
    drawn: list[tuple[Markup | None, str]] = []
    for name, (axis, least) in wanted.items():
        panels: dict[str, dict[str, list[Mapping[int, float]]]] = {}
        for (data, method, _), by_name in sorted(read.items(), key=lambda cell: study.data.index(cell[0][0])):
            if by_name.get(name):
                panels.setdefault(data, {}).setdefault(method, []).append(by_name[name])
        panels = {data: one for data, one in panels.items() if max(len(c) for cs in one.values() for c in cs) >= least}
        title = axis.split(" on ")[0]
        svg = figures.bands(name.replace("/", "-"), panels, methods=study.methods, axis=title) if panels else None
        drawn.append((svg, axis))
    return drawn
