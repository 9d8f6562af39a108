"""The parts of a page that say who wins: ranks, differences, claims, groups of questions, curves, all scores."""

import math
from collections.abc import Mapping, Sequence

from fedloom.benchmark.page import figures, logs
from fedloom.benchmark.page.blocks import Block, Cell, Figure, Section, Table, Text
from fedloom.benchmark.page.findings import Findings
from fedloom.benchmark.page.words import NONE, bounds, capital, decided, minus, place, score_name, signed, value
from fedloom.benchmark.ranking import ALL, PairRow, mean_value
from fedloom.benchmark.suite import BASE
from fedloom.benchmark.summary import ScoreRow
from fedloom.evaluation.statistics import Interval
from fedloom.results.estimates import FACTS, Estimate, crossed
from fedloom.results.per_client import direction

__all__ = ["claims", "curves", "differences", "facts", "groups", "ranking", "tables"]

_MEAN = "mean of all data sets"
_UNBOUNDED = "Those of a mean of data sets are not bounded by the range of a score: they may end below 0 or above 1."


def _called(data: str) -> str:
    return _MEAN if data == ALL else data


def ranking(found: Findings) -> Section:
    """Return the forest plot and the ranks."""
    title = "Result" if found.single else "Ranking"
    if not found.ranks:
        return Section("ranking", title, [Text(f"Nothing is ranked: {found.unranked}.", "bad")])
    panels = {_called(data): [(row.method, row.value) for row in rows] for data, rows in found.ranks.items()}
    base = {_called(data): interval for data, interval in _base(found).items() if data in found.ranks}
    if found.single:
        panels = {name: [*ranked, (BASE, base[name])] for name, ranked in panels.items() if name in base}
    figure = Figure(
        figures.forest(
            "forest",
            panels,
            best={_called(data): found.first(data) for data in found.ranks},
            axes={
                _called(data): f"{score_name(found.score(data))}, {_better(found.sign(data))}" for data in found.ranks
            },
            reference={} if found.single else {name: interval.value for name, interval in base.items()},
        ),
        f"Forest plot: {'; '.join(f'{m} {value(i.value)}, {bounds(i)}' for m, i in panels[_called(found.whole)][:12])}",
        "Points are values on the common test, strokes their 95 % intervals; filled: the best of each panel, of those "
        f"that leave the data where they are.{'' if found.single else ' Dashed: the model before training.'}",
    )
    return Section("ranking", title, [figure, _ranks(found), *_unranked(found), Text(_how(found), "muted")])


def _better(sign: int) -> str:
    return "more is better" if sign > 0 else "less is better"


def _base(found: Findings) -> dict[str, Interval]:
    """Return the score before training by data set and on their mean, of the first method that tells it.

    It is the same for all methods.
    """
    base: dict[str, Interval] = {}
    for row in found.summary.scores:
        if row.questions == "test" and row.score == found.summary.headline[row.data] and row.base:
            base.setdefault(row.data, row.base)
    mean = _mean_base(found, base)
    return base | ({ALL: mean} if mean else {})


def _mean_base(found: Findings, base: Mapping[str, Interval]) -> Interval | None:
    """Return the mean over the data sets of the score before training, as their other means are made."""
    study = found.study
    if ALL not in found.ranks or not all(data in base for data in study.data):
        return None
    # The first one is ranked, so none of its runs is missing.
    return mean_value(study, study.data, found.ranks[ALL][0].method, "base")


def _ranks(found: Findings) -> Table:
    values = crossed((row.method, data, row.value) for data, rows in found.ranks.items() for row in rows)
    columns = ["method", "place", "95 % of resamples"]
    columns += [f"{_called(data)}: {score_name(found.score(data))}" for data in found.ranks]
    rows = [
        [row.method, place(row.rank.value), f"{place(row.rank.low)} to {place(row.rank.high)}"]
        + [_interval(values[row.method].get(data)) for data in found.ranks]
        for row in found.ranks[found.whole]
    ]
    return Table(f"Places by {score_name(found.score(found.whole))}, values with 95 % intervals", columns, rows)


def _unranked(found: Findings) -> list[Text]:
    ranked = {row.method for row in found.ranks[found.whole]}
    others = [method for method in found.study.methods if method not in ranked]
    told = f"Not ranked, as runs or scores are missing: {', '.join(others)}."
    return [Text(told)] if others else []


def _how(found: Findings) -> str:
    moved = [row.method for row in found.ranks[found.whole] if found.is_centralised(row.method)]
    told = f"{capital(' and '.join(moved))}: all data in one place, a bound rather than a rival. " if moved else ""
    seeds = len(found.study.seeds)
    if seeds > 1:
        bound = f" {_UNBOUNDED}" if len(found.study.data) > 1 else ""
        return f"{told}Intervals: over {seeds} seeds, and over the questions and clients that they share.{bound}"
    told += "One seed: intervals by bootstrap over clients and questions; they do not tell how another seed would fare."
    return told + " Intervals of data sets are joined for their mean." * (len(found.study.data) > 1)


def _interval(interval: Interval | None) -> str:
    return f"{value(interval.value)} ({bounds(interval)})" if interval else NONE


# -------------------------------------------------------------------------------------------------------------- pairs


def differences(found: Findings) -> Section:
    """Return the paired differences of the best method to the others, and of all pairs as matrices."""
    if not found.ranks:
        return Section("differences", "Paired differences", [Text("There is nothing to pair.")])
    columns = ("less", "data", "difference", "95 % interval", "corrected p", "decision")
    rows = [_gap_row(data, one) for data, gaps in found.gaps.items() for one in gaps]
    what = "less itself before training" if found.single else "less each other method"
    note = (
        "The same questions, clients and seeds on both sides. Decided: the interval leaves out 0"
        + (
            "."
            if found.single
            else ", and swapping the answers of the two rarely gives as much (p below 0.05, corrected "
        )
        + ("" if found.single else "for all pairs of the data set). Best was chosen by the same numbers.")
    )
    matrices = [] if found.single or len(found.study.methods) < 3 else [_matrix(found, data) for data in found.ranks]
    table = Table(f"{found.best} {what}", columns, rows, texts=(0, 1, 5))
    return Section("differences", "Paired differences", [table, Text(note, "muted"), *matrices])


def _gap_row(data: str, one: PairRow) -> list[Cell | str]:
    p = NONE if math.isnan(one.corrected_p) else f"{one.corrected_p:.4f}"
    return [one.second, _called(data), signed(one.difference.value), bounds(one.difference), p, decided(one.verdict)]


def _matrix(found: Findings, data: str) -> Table:
    """Return all pairs of a data set, the row's method less the column's."""
    methods = [row.method for row in found.ranks[data]]
    pairs = [turn for row in found.summary.pairs if row.data == data for turn in (row, row.turned())]
    cells = crossed((one.first, one.second, _mark(one.difference.value, one.verdict)) for one in pairs)
    rows = [[one, *(cells.get(one, {}).get(other, Cell("", "muted")) for other in methods)] for one in methods]
    caption = f"{_called(data)}: all pairs, row less column; ▲ better, ▼ worse, no mark: not decided"
    return Table(caption, ("method", *methods), rows, folded=True)


def _mark(difference: float, verdict: str) -> Cell:
    told = decided(verdict)
    mark = "" if told.tone == "open" else f"{told.text[0]} "
    return Cell(f"{mark}{signed(difference)}", told.tone)


def _worded(told: str) -> str:
    """Return what a claim's decision tells in the page's words and signs."""
    return minus(told).replace(ALL, _MEAN)


def claims(found: Findings) -> Section | None:
    """Return what became of the suite's claims; None if it has none."""
    if not found.told.decisions:
        return None
    tones = {"holds": Cell("▲ holds", "good"), "does not hold": Cell("▼ does not hold", "bad")}
    rows = [
        [one.text, tones.get(one.state, Cell(one.state, "open")), _worded(one.reason)] for one in found.told.decisions
    ]
    parts = [
        [one.text, _worded(part["what"]), signed(part.interval.value), bounds(part.interval)]
        for one in found.told.decisions
        for part in one.parts
    ]
    columns = ("claim", "difference of", "value", "interval")
    return Section("claims", "Claims", [
        Table("What the suite claims, decided by intervals", ("claim", "decision", "why"), rows, texts=range(3)),
        Table("The differences behind the claims", columns, parts, texts=(0, 1), folded=True),
    ])  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- groups


def groups(found: Findings) -> list[Section]:
    """Return methods by language and by domain of the questions, where these are told."""
    made: list[Section] = []
    for tag, rows in (("language", found.summary.languages), ("domain", found.summary.domains)):
        blocks = _group_tables(found, rows, f"by {tag}")
        note = (
            f"Columns are the {tag}s of the common test's questions, with how many there are; in brackets "
            "behind a method, whose models answer. Shades go from the lowest to the highest value of a table."
        )
        made += [Section(f"by-{tag}", f"By {tag}", [*blocks, Text(note, "muted")])] if blocks else []
    return made


def facts(found: Findings) -> Section | None:
    """Return methods by whose facts are asked for, where runs say what their clients' records are about."""
    tables = _group_tables(found, found.summary.facts, "by whose facts are asked for", groups=tuple(FACTS))
    note = (
        "A client's own facts are those that its training records are about. What only others' records tell, training "
        "alone cannot teach: a score over all questions mixes the two."
    )
    return Section("who-knows-what", "Who knows what", [*tables, Text(note, "muted")]) if tables else None


def _group_tables(found: Findings, every: Sequence[Estimate], by: str, groups: Sequence[str] = ()) -> list[Block]:
    """Return a table for each data set: methods, and whose models answer, by the group of the question.

    Groups that are not named are those found, with their numbers of questions.
    """
    tables: list[Block] = []
    for data in found.study.data:
        rows = [row for row in every if row["data"] == data]
        counts = {row["group"]: row.n_questions for row in rows}
        heads = groups or [f"{group} ({count})" for group, count in counts.items()]
        cells = crossed((_answering(row, named=bool(groups)), row["group"], row.interval) for row in rows)
        values = [row.interval.value for row in rows]
        shown = [[who, *(_shaded(by.get(group), values) for group in groups or counts)] for who, by in cells.items()]
        caption = f"{data}: {score_name(found.score(data))} {by}"
        tables += [Table(caption, ("method", *heads), shown)] if rows else []
    return tables


def _answering(row: Estimate, *, named: bool) -> str:
    return row["method"] if named or row["models"] == "all" else f"{row['method']} ({row['models']})"


def _shaded(interval: Interval | None, values: Sequence[float]) -> Cell:
    if interval is None:
        return Cell(NONE, "muted")
    low, high = min(values), max(values)
    shade = min(9, int(10 * (interval.value - low) / (high - low))) if high > low else 0
    return Cell(f"{value(interval.value)} ± {value((interval.high - interval.low) / 2)}", shade=shade)


# -------------------------------------------------------------------------------------------------------------- curves


def curves(found: Findings) -> Section:
    """Return training loss and held-out scores over rounds."""
    study = found.study
    read = {key: logs.curves(one) for key, one in study.cells.items()}
    scores = dict.fromkeys([*found.summary.headline.values(), "loss"])
    wanted = {"train_loss": ("training loss", 2)}
    wanted |= {f"test/{score}": (f"{score_name(score)} on the common test", 3) for score in scores}
    blocks: list[Block] = []
    for name, (axis, least) in wanted.items():
        panels = {data: _curves_of(read, study.methods, data, name) for data in study.data}
        panels = {data: by_method for data, by_method in panels.items() if _longest(by_method) >= least}
        if panels:
            svg = figures.bands(name.replace("/", "-"), panels, methods=study.methods, axis=axis.split(" on ")[0])
            blocks.append(Figure(svg, f"Curves of {axis} over rounds, a line per method", f"{capital(axis)}."))
    told = "Lines are means over the seeds, bands reach from the lowest seed to the highest. " * (len(study.seeds) > 1)
    told += "Training loss is that of the clients trained in the round, before the server's step. "
    if len(blocks) < len(wanted):
        told += "Held-out scores taken before and after training only have no curve; evaluation.every takes more."
    return Section("curves", "Curves", [*blocks, Text(told, "muted")])


def _longest(by_method: Mapping[str, Sequence[Mapping[int, float]]]) -> int:
    return max((len(seed) for seeds in by_method.values() for seed in seeds), default=0)


def _curves_of(
    read: Mapping[tuple[str, str, int], logs.Curves], methods: Sequence[str], data: str, name: str
) -> dict[str, list[Mapping[int, float]]]:
    found = {
        method: [by_name[name] for (d, m, _), by_name in read.items() if (d, m) == (data, method) and by_name.get(name)]
        for method in methods
    }
    return {method: seeds for method, seeds in found.items() if seeds}


# -------------------------------------------------------------------------------------------------------------- scores


def tables(found: Findings) -> Section:
    """Return all scores of each data set, before and after training."""
    kinds: dict[tuple[str, str], list[ScoreRow]] = {}
    for row in found.summary.scores:
        kinds.setdefault((row.data, row.questions), []).append(row)
    note = (
        "Means with 95 % intervals; ↑ more is better, ↓ less is. Each model answers its own clients' validation part."
    )
    note += f" {_UNBOUNDED}" * (len(found.study.seeds) > 1)
    blocks: list[Block] = [_score_table(data, questions, rows) for (data, questions), rows in kinds.items()]
    return Section("scores", "All scores", [*blocks, Text(note, "muted")])


def _score_table(data: str, questions: str, rows: Sequence[ScoreRow]) -> Table:
    scores = list(dict.fromkeys(row.score for row in rows))
    base = [(BASE, row.score, row.base) for row in reversed(rows) if row.base]  # of the first method that tells it
    values = {BASE: {}, **crossed([*base, *((row.method, row.score, row.final) for row in rows)])}
    arrows = {1: " ↑", -1: " ↓", 0: ""}
    heads = [f"{score_name(score)}{arrows[direction(score)]}" for score in scores]
    shown = [[method, *(_interval(by.get(score)) for score in scores)] for method, by in values.items()]
    n = max(row.n_questions for row in rows)
    return Table(f"{data}: {n} {questions} questions", ("method", *heads), shown)
