"""The parts of a page behind the scores: data, cost, privacy, what left the clients, what the runs ran on, gaps."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedloom.base.errors import RunError
from fedloom.benchmark.page import figures, logs
from fedloom.benchmark.page.blocks import Block, Cell, Figure, Section, Table, Text
from fedloom.benchmark.page.words import NONE, count, duration, minus, plural, size, value
from fedloom.benchmark.suite import SuiteOutcome
from fedloom.results.outcome import Outcome
from fedloom.runs.accounts import largest_epsilon, spent_text

__all__ = ["cost", "data_card", "environment", "gaps", "privacy"]


_Kind = tuple[str, str, list[Outcome]]
"""Data set, method and their finished runs."""

_COVERED = (
    "Covered: all that the contributions of one unit (an example, or everything of a client) bear on in what training "
    "sends, the adapter among it. Not covered: held-out scores, the numbers and lengths of examples in the partition "
    "card, and texts of a common test set. Shown is the worst client, over all seeds."
)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _cell_runs(study: SuiteOutcome) -> list[_Kind]:
    """Return (data, method, finished runs) where there are any."""
    kinds = [(data, method, list(study.runs(data, method).values())) for data in study.data for method in study.methods]
    return [kind for kind in kinds if kind[2]]


# ---------------------------------------------------------------------------------------------------------------- data


def data_card(study: SuiteOutcome, folder: Path) -> Section:
    """Return sizes and facts of each partition, and the diversities where `fedloom data describe` has measured them."""
    first = {data: runs[0] for data, _, runs in reversed(_cell_runs(study))}
    panels: dict[str, list[int]] = {}
    rows: list[list[str]] = []
    for data in filter(first.__contains__, study.data):
        counts, (gini, clients, tokens) = logs.facts(first[data])
        panels[data] = sizes = sorted(counts)
        shown = [len(sizes), sum(sizes), sizes[0], sizes[len(sizes) // 2], sizes[-1]]
        rows.append([data, *map(count, shown), value(gini), f"{clients:.1f}", count(tokens)])
    columns = ("data", "clients", "examples", "smallest", "median", "largest", "Gini of sizes", "effective clients")
    caption = "Data, as the first run of each data set divided them, held-out examples included"
    drawing, label = figures.sizes("sizes", panels), "Bars: examples of each client, largest first"
    blocks: list[Block] = [
        Table(caption, (*columns, "training tokens"), rows),
        Figure(drawing, label, "Examples of each client."),
    ]
    for data in panels:
        blocks += _diversities(data, Path(first[data].path), folder)
    return Section("data", "Data", blocks)


def _diversities(data: str, run: Path, folder: Path) -> list[Block]:
    """Return the seven diversities of a data set, looked for beside its runs and in the page's folder."""
    places = [run, folder / data, run.parent, folder]
    path = next((place / "diversity.json" for place in places if (place / "diversity.json").is_file()), None)
    if path is None:
        return _unmeasured(data, run, folder)
    try:
        axes = json.loads(path.read_text(encoding="utf-8"))["axes"]
        indices = [(axis, index) for axis in axes for index in axis["indices"]]
        strips = [_strip(axis, index) for axis, index in indices if index["clients"]]
        rows = [_diversity_row(axis, index) for axis, index in indices]
        rows += [[str(axis["title"]), str(axis["why"]), *[NONE] * 3, ""] for axis in axes if not axis["measured"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{path}: is not what `fedloom data describe` wrote ({error}); measure again or remove it."
        ) from error
    columns = ("axis", "index", "mean of clients", "by chance", "largest possible", "clients furthest from the pool")
    table = Table(f"{data}: seven diversities, 0 where a client is like the pool", columns, rows, texts=(0, 1, 5))
    if not strips:
        return [table]
    caption = (
        "A stroke per client; dot: their mean; diamond: what records drawn at random would give. Each row has a scale "
        "of its own, whose end stands beside it."
    )
    label = "Strips: indices of diversity by client, from like the pool to the furthest client"
    return [table, Figure(figures.strips(f"strips-{data}", strips), label, caption)]


def _unmeasured(data: str, run: Path, folder: Path) -> list[Block]:
    """Return the command that measures; DIR stands for a path from the root, which is the machine's and no reader's."""
    shown = Path("DIR") if folder.is_absolute() else folder
    inside = os.path.relpath(run.resolve(), folder.resolve())
    out = shown if inside == "." else shown / data
    command = shlex.join(["fedloom", "data", "describe", str(shown / inside / "run.toml"), "--out", str(out)])
    where = " (DIR: the folder of this page)" if folder.is_absolute() else ""
    told = (
        f"{data}: the seven diversities have not been measured. To have them here, run this where the runs were started"
        f"{where} and then make the page anew:"
    )
    return [Text(told, "muted", code=command)]


def _strip(axis: Mapping[str, Any], index: Mapping[str, Any]) -> tuple[str, list[float], float | None]:
    """Return the name of an index, its value for each client and what chance would give."""
    chance = None if index["chance"] is None else logs.number(index["chance"])
    return f"{axis['title']}: {index['label']}", list(map(logs.number, index["clients"].values())), chance


def _diversity_row(axis: Mapping[str, Any], index: Mapping[str, Any]) -> list[str]:
    unit = f" ({index['unit']})" if index["unit"] else ""
    furthest = ", ".join(f"{client} {value(logs.number(far))}" for client, far, _ in index["furthest"][:3])
    return [
        str(axis["title"]),
        f"{index['label']}{unit}",
        *map(value, (index["mean"], index["chance"], index["highest"])),
        furthest,
    ]


# ---------------------------------------------------------------------------------------------------------------- cost


def cost(study: SuiteOutcome) -> Section:
    """Return what a run of each kind cost, the mean over its seeds."""
    columns = ("data", "method", "runs", "rounds", "tokens trained", "sent by clients", "sent to clients", "wall time")
    rows = [_cost_row(data, method, runs) for data, method, runs in _cell_runs(study)]
    total = sum(found.cost["wall_s"] for found in study.cells.values())
    note = (
        f"All {plural(len(study.cells), 'run')} together: {duration(total)} of wall time, evaluation included. Tokens: "
        "those of each client's data times the epochs that the ledger tells; a dash where privacy hides them. Wall "
        "times bear on the machine and on what else it did."
    )
    table = Table("Cost of a run, mean over seeds", columns, rows, texts=(0, 1))
    return Section("cost", "Cost", [table, Text(note, "muted")])


def _cost_row(data: str, method: str, runs: Sequence[Outcome]) -> list[str]:
    tokens = [known for found in runs if (known := logs.trained_tokens(found)) is not None]
    means = {name: _mean([found.cost[name] for found in runs]) for name in runs[0].cost}
    return [
        data,
        method,
        count(len(runs)),
        count(means["rounds"]),
        count(_mean(tokens)) if tokens else NONE,
        size(means["upload_bytes"]),
        size(means["download_bytes"]),
        duration(means["wall_s"]),
    ]


# ------------------------------------------------------------------------------------------------------------- privacy


def privacy(study: SuiteOutcome) -> Section:
    """Return what was spent of the clients' privacy, and all that left them."""
    kinds = _cell_runs(study)
    private = [kind for kind in kinds if kind[2][0].privacy]
    blocks: list[Block] = [_spent(private), Text(_COVERED)] if private else []
    open_kinds = [kind for kind in kinds if not kind[2][0].privacy]
    if open_kinds:
        told = "rows and scores that left the clients may tell of single examples."
        blocks.append(Text(f"Without differential privacy: {_named(open_kinds)}; {told}"))
    if any(runs[0].pooled for _, _, runs in kinds):
        blocks.append(Text("Centralised runs have all data in one place: the ledger tells what else was sent."))
    return Section("privacy", "Privacy and what left the clients", [*blocks, _left(kinds)])


def _named(kinds: Sequence[_Kind]) -> str:
    """Return which kinds of run these are, in few words."""
    methods = list(dict.fromkeys(method for _, method, _ in kinds))
    shown = ", ".join(methods[:4]) + (f" and {len(methods) - 4} more" if len(methods) > 4 else "")
    data = list(dict.fromkeys(data for data, _, _ in kinds))
    return f"{shown} on {data[0] if len(data) == 1 else plural(len(data), 'data set')}"


def _left(kinds: Sequence[_Kind]) -> Table:
    """Return all that left the clients in one run of each kind; kinds that sent alike share a row."""
    alike: dict[logs.Sent, list[_Kind]] = {}
    for kind in kinds:
        for one in logs.sent(kind[2][0]):
            alike.setdefault(one, []).append(kind)
    rows = [
        [s.what, count(s.times), count(s.clients), size(s.size_bytes) if s.size_bytes else NONE, _named(senders)]
        for s, senders in alike.items()
    ]
    columns = ("what", "times", "clients", "in all", "runs of")
    caption = "All that left the clients in one run of each kind, from ledger.jsonl"
    return Table(caption, columns, rows, texts=(0, 4))


def _spent(private: Sequence[_Kind]) -> Table:
    columns = ("method", "data", "unit", "epsilon", "delta", "noise multiplier", "uses", "noise from")
    rows: list[list[str | Cell]] = []
    for data, method, runs in private:
        cards = [found.privacy for found in runs]
        worst = max(cards, key=largest_epsilon)
        epsilon = spent_text(worst).removeprefix("epsilon ")
        seeded = worst.get("settings", {}).get("noise") == "seeded"
        source = Cell("a seed: a simulation, no protection", "bad") if seeded else Cell("the system")
        noise = value(worst["smallest_noise_multiplier"])
        uses = count(worst.get("uses"))
        rows.append([method, data, str(worst["unit"]), epsilon, minus(f"{worst['delta']:.2g}"), noise, uses, source])
    return Table("Spent on the clients' privacy", columns, rows, texts=(0, 1, 2, 7))


# --------------------------------------------------------------------------------------------------------- environment


def environment(study: SuiteOutcome) -> Section:
    """Return what the runs ran on; each different value is told once."""
    told: dict[str, list[str]] = {}
    for found in study.cells.values():
        for name, text in logs.environment(found).items():
            if text and text not in told.setdefault(name, []):
                told[name].append(text)
    rows = [
        [name, "; ".join(texts[:3]) + (f"; and {len(texts) - 3} more" if len(texts) > 3 else "")]
        for name, texts in told.items()
    ]
    table = Table("Versions, devices, commit and command", ("what", "found"), rows, texts=(0, 1))
    return Section("environment", "Environment", [table])


# ---------------------------------------------------------------------------------------------------------------- gaps


def gaps(study: SuiteOutcome) -> Section | None:
    """Return the runs that have not ended well; None if all have."""
    if not study.missing:
        return None
    rows = [[data, method, str(seed)] for data, method, seed in study.missing]
    total = len(study.missing) + len(study.cells)
    told = f"{len(study.missing)} of {plural(total, 'run')} failed or are not complete: nothing above counts them."
    table = Table("Not complete", ("data", "method", "seed"), rows, texts=(0, 1))
    return Section("missing", "Failed or missing runs", [Text(told, "bad"), table])
