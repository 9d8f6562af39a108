"""The part of a page that says how the clients fare, each with its own model or the shared one on its own examples."""

from collections.abc import Sequence

from fedloom.benchmark.page.blocks import Block, Figure, Section, Table, Text
from fedloom.benchmark.page.figures import heat_map
from fedloom.benchmark.page.findings import Findings, OwnScores
from fedloom.benchmark.page.words import NONE, bounds, capital, score_name, value
from fedloom.benchmark.summary import ClientRow
from fedloom.evaluation.statistics import Interval
from fedloom.results.per_client import direction

__all__ = ["clients"]

_WORST = 10  # clients listed before the rest is folded away
_MEASURES = {
    "mean": "mean",
    "tenth_percentile": "10th percentile",
    "worst_decile": "worst decile",
    "worst_client": "worst client",
    "gap": "gap",
    "deviation": "deviation",
}
_WITH_INTERVAL = ("mean", "worst_decile", "gap")
_NOTE = (
    "Every client's own held-out examples. Worst decile: the mean of the tenth of the clients that fare worst; gap: "
    "from there to the best decile, 0 if all fare alike. A client has few examples: its own value is noisy, and the "
    "worst of many are partly the unluckiest."
)
_EACH_SEED = (
    " Tables of fairness take these of every seed by itself and then their mean over all seeds; heat maps and lists of "
    "clients do not, so that the worst client of a list is not the worst client of the table."
)


def clients(found: Findings) -> Section:
    """Return heat maps of clients by method, what they tell of fairness, and the clients that fare worst."""
    blocks = [block for data, own in found.clients.items() if own.by_method for block in _blocks(found, data)]
    several = any(len(row.clients) > 1 for rows in found.fairness.values() for row in rows)
    note = _NOTE + _EACH_SEED * several
    told = Text(note, "muted") if blocks else Text("No client has held-out examples of its own.")
    return Section("clients", "Clients", [*blocks, told])


def _blocks(found: Findings, data: str) -> list[Block]:
    table, score = found.clients[data].by_method, score_name(found.score(data))
    chosen = found.best if found.best in table else list(table)[-1]
    sign = found.sign(data)
    order = sorted(table[chosen], key=lambda client: (sign * table[chosen][client], client))
    svg = heat_map(f"heat-{list(found.clients).index(data)}", table, clients=order, axis=score)
    label = f"Heat map of {score}, {len(table)} rows by {len(order)} clients, worst on the left"
    caption = f"{data}: clients from left to right by their score with {chosen}, the worst first.{_why(found, data)}"
    worst = _listed(found, data, order[:_WORST], f"the clients that fare worst with {chosen}")
    everyone = [_listed(found, data, order, f"all {len(order)} clients", folded=True)] if len(order) > _WORST else []
    return [Figure(svg, label, caption), _fairness(data, score, found.fairness[data]), worst, *everyone]


def _of(own: OwnScores) -> str:
    """Return which seeds a client's number is of."""
    seeds = ", ".join(map(str, own.seeds))
    return f"seed {seeds}" if len(own.seeds) == 1 else f"mean over seeds {seeds}"


def _why(found: Findings, data: str) -> str:
    """Return which seeds a heat map shows, and why not all; nothing where there is one."""
    own = found.clients[data]
    if len(found.study.seeds) == 1:
        return ""
    if own.alike:
        rest = "" if len(own.seeds) == len(found.study.seeds) else ": what all these methods have"
        return f" {capital(_of(own))}{rest}."
    return (
        f" {capital(_of(own))} alone: each seed draws its own data, so that a name means another client on another "
        "seed, and a mean would be about nobody."
    )


def _fairness(data: str, score: str, rows: Sequence[ClientRow]) -> Table:
    columns = ("method", "clients", *_MEASURES.values())
    shown = [
        [
            row.method,
            str(max(map(len, row.clients.values()))),
            *(_measure(name, row.measures.get(name)) for name in _MEASURES),
        ]
        for row in rows
    ]
    arrow = "more" if (direction(rows[0].score) or 1) > 0 else "less"
    how = ", mean over seeds" if max(len(row.clients) for row in rows) > 1 else ""
    return Table(f"{data}: {score} over clients{how}, {arrow} is better; intervals of 95 %", columns, shown)


def _measure(name: str, interval: Interval | None) -> str:
    if interval is None:
        return NONE
    return f"{value(interval.value)} ({bounds(interval)})" if name in _WITH_INTERVAL else value(interval.value)


def _listed(found: Findings, data: str, chosen: Sequence[str], what: str, *, folded: bool = False) -> Table:
    own = found.clients[data]
    columns = ("client", *own.by_method)
    rows = [[client, *(value(by_client.get(client)) for by_client in own.by_method.values())] for client in chosen]
    of = f", {_of(own)}" if len(found.study.seeds) > 1 else ""
    return Table(f"{data}: {what}{of}, {score_name(found.score(data))}", columns, rows, folded=folded)
