"""`fedloom bench`: a suite of data sets, methods and seeds from its file to its tables, claims and page."""

import contextlib
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedloom.base.errors import FedloomError
from fedloom.base.shown import shown
from fedloom.base.tables import Table
from fedloom.cli.output import lines, overriding, print_tables

if TYPE_CHECKING:
    from fedloom.benchmark.runner import Ended
    from fedloom.benchmark.suite import Cell, Suite
    from fedloom.benchmark.summary import Summary
    from fedloom.evaluation.statistics import Interval
    from fedloom.results.estimates import Estimate

__all__ = ["bench", "carried_out"]


def bench(
    file: Annotated[Path, typer.Argument(help="A suite file (TOML).", show_default=False)],
    overrides: Annotated[list[str] | None, overriding("common.rounds=5 or 'seeds=[0,1]'")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The suite directory, made or gone on with.", show_default=False)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The quick version that the file describes.")] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; left out: as the file says.", show_default=False)
    ] = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="Measure the seven diversities of each data set for the page, once.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Print all tables that the page has.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print nothing but claims, what they lack, and errors.")
    ] = False,
) -> None:
    """Run a suite, or what is left of it, and print who wins, by how much and how sure; the page has the rest.

    Exit code 0: all claims hold; 1: one does not, or is not decided, which a quick version may leave open; 2: refused,
    or a run failed.
    """
    from fedloom.base.extras import require
    from fedloom.benchmark.page import headlines, write_report
    from fedloom.benchmark.runner import conclude_directory, describe_data
    from fedloom.benchmark.suite import load_suite

    require("bench (it ends with a page)", "matplotlib")
    suite = load_suite(file, overrides or [], quick=quick)
    folder = out or Path("runs") / f"{file.stem}{'_quick' * quick}"
    problems = carried_out(suite, folder, jobs=jobs or suite.jobs, silent=quiet or as_json)
    if problems and not any(folder.glob("*/*/report.md")):
        problems.append("no cell has ended: mend that, and the same command starts them again.")
        _end(problems, all_hold=False)
    problems += describe_data(suite, folder) if describe else []
    told = conclude_directory(folder)
    if as_json:
        lines([json.dumps(told.record(), allow_nan=False)])
    else:
        print_tables([] if quiet else _tables(told.summary) if full else _ranking(told.summary))
        lines([*told.summary.absent_controls, *(one.line for one in told.decisions)])
    try:
        lines([] if quiet or as_json else headlines(told))
        page = write_report(folder, told=told)
        lines(
            [] if quiet or as_json else [*(["clients, languages, domains, pairs: --full, or"] * (not full)), str(page)]
        )
    except FedloomError as error:
        problems.append(f"report.html: {error}")
    enough = ("holds", "not decided") if quick else ("holds",)
    _end(problems, all_hold=all(one.state in enough for one in told.decisions))


def _end(problems: list[str], *, all_hold: bool) -> None:
    for problem in problems:
        _say(problem)
    if problems or not all_hold:
        raise typer.Exit(2 if problems else 1)


def _say(text: str) -> None:
    sys.stderr.write(f"fedloom: {' '.join(shown(text).split())}\n")


def carried_out(suite: "Suite", folder: Path, *, jobs: int, silent: bool, called: str = "cells") -> list[str]:
    """Run the cells that have not ended well, a line for each; return what went wrong, or leave where stopped."""
    from fedloom.benchmark.runner import carry_out, opened_directory, waiting_cells

    ended: list[Ended] = []
    try:
        with opened_directory(suite, folder):
            waiting = waiting_cells(suite, folder)
            with contextlib.closing(carry_out(waiting, folder, jobs=jobs)) as carried:
                for one in carried:
                    ended.append(one)
                    if not silent:
                        _tell_data(one.cell, ended, folder)
                        _progress(ended, waiting, jobs)
    except KeyboardInterrupt:
        _say(f"stopped; the same command goes on, and finished {called} stay as they are.")
        raise typer.Exit(130) from None
    return _told_once(ended)


def _told_once(ended: "Iterable[Ended]") -> list[str]:
    """Return each problem once, with the cells that it stopped: a missing file stops all that read it."""
    stopped: dict[str, list[str]] = {}
    for one in ended:
        if one.problem:
            stopped.setdefault(one.problem, []).append(one.cell.folder)
    return [
        f"{cells[0]}{f' and {len(cells) - 1} more cells' * (len(cells) > 1)}: {problem}"
        for problem, cells in stopped.items()
    ]


def _tell_data(cell: "Cell", ended: "list[Ended]", folder: Path) -> None:
    """Say once for each data set what share of its examples was cut or dropped."""
    from fedloom.data.clients import cut_and_dropped
    from fedloom.runs.directory import RunDirectory

    run = RunDirectory(folder / cell.folder)
    if [one.cell.data for one in ended].count(cell.data) == 1 and (run.path / "partition.json").is_file():
        line, warns = cut_and_dropped(run.table("partition.json").get("encoded", {}))
        lines([f"{'WARNING: ' * warns}{cell.data}: {line}"])


def _progress(ended: "list[Ended]", waiting: "list[Cell]", jobs: int) -> None:
    from fedloom.benchmark.runner import remaining_s

    done, last = {one.cell.key for one in ended}, ended[-1]
    left_s = remaining_s(ended, [cell for cell in waiting if cell.key not in done], jobs=jobs)
    state = f"failed: {last.problem}" if last.problem else f"{last.wall_s:.1f} s"
    lines([f"[{len(ended)}/{len(waiting)}] {last.cell.folder}  {state}, about {left_s / 60:.1f} min left"])
    sys.stdout.flush()


def _ranking(summary: "Summary") -> list[Table]:
    """Return the order of the methods on the whole, and of one data set by whose facts are asked for."""
    from fedloom.results.estimates import FACTS

    names = {row.data for row in summary.ranks}
    whole = _whole(summary)
    own = [row for row in summary.ranks if row.data == whole]
    rows = sorted(own, key=lambda row: (math.isnan(row.rank.value), row.rank.value))
    score = summary.headline.get(whole, "score")
    told = tuple((row.method, f"{row.value:.3f}", _place(row.rank)) for row in rows)
    title = f"{summary.title}, {_seeds(summary.seeds)}{f', {whole}' * (len(names) > 1)}"
    facts = _matrices(summary.facts, "{} by whose facts are asked for, with 95 % intervals", groups=tuple(FACTS))
    return [Table(title, ("method", score, "place"), told), *(facts if len(facts) == 1 else [])]


def _tables(summary: "Summary") -> list[Table]:
    from fedloom.results.estimates import FACTS

    title = f"{summary.title}, {_seeds(summary.seeds)}: score and place, with intervals"
    heads = {row.data: ": ".join([row.data, *filter(None, [summary.headline.get(row.data)])]) for row in summary.ranks}
    ranks = [((row.method,), heads[row.data], f"{row.value:.3f}  {_place(row.rank)}") for row in summary.ranks]
    about = _whole(summary)
    pairs = [
        (f"{r.first} - {r.second}", f"{r.difference:+.3f}", f"{r.p:.4f}", f"{r.corrected_p:.4f}", r.verdict)
        for r in summary.pairs
        if r.data == about
    ]
    header = ("pair", "difference", "p", "corrected", "the first is")
    return [
        _crossed(title, ("method",), ranks),
        *([Table(f"Pairs on {about}", header, tuple(pairs))] if pairs else []),
        *_client_tables(summary),
        *_matrices(summary.languages, "by language of the question, {}"),
        *_matrices(summary.domains, "by domain of the question, {}"),
        *_matrices(summary.facts, "{} by whose facts are asked for, with 95 % intervals", groups=tuple(FACTS)),
    ]


def _whole(summary: "Summary") -> str:
    """Return the name of the mean of all data sets, or of the only one."""
    from fedloom.benchmark.ranking import ALL

    names = [row.data for row in summary.ranks]
    return ALL if ALL in names else next(iter(names), "")


def _place(rank: "Interval") -> str:
    return "a bound" if math.isnan(rank.value) else f"{rank.value:g} [{rank.low:g}, {rank.high:g}]"


def _seeds(seeds: tuple[int, ...]) -> str:
    return f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {min(seeds)}"


def _client_tables(summary: "Summary") -> list[Table]:
    """Return how the clients fare on their own questions by the headline score."""
    from fedloom.results.show import cell

    own = [row for row in summary.clients if row.questions == "validation, own"]
    rows = [row for row in own if row.score == summary.headline[row.data]]
    names = tuple(rows[0].measures) if rows else ()
    cells = [(row.data, row.method, row.score, *(cell(row.measures[name]) for name in names)) for row in rows]
    header = ("data", "method", "score", *(name.replace("_", " ") for name in names))
    return [Table("Clients on their own held-out questions", header, tuple(cells))] * bool(rows)


def _matrices(rows: "Sequence[Estimate]", title: str, groups: tuple[str, ...] = ()) -> list[Table]:
    """Return a table per data set: methods, and whose models where that varies, by the group of the question."""
    tables: list[Table] = []
    for data in dict.fromkeys(row["data"] for row in rows):
        mine = [row for row in rows if row["data"] == data]
        about = f"{data}{':' * bool(groups)} {title.format(mine[0]['score'])}"
        cells = [
            (
                (row["method"],) if groups else (row["method"], row["models"]),
                row["group"],
                f"{row.interval:.3f}" if groups else f"{row.interval.value:.3f}",
            )
            for row in mine
        ]
        tables.append(_crossed(about, ("method",) if groups else ("method", "models"), cells, groups))
    return tables


def _crossed(
    title: str, heads: tuple[str, ...], cells: Sequence[tuple[tuple[str, ...], str, str]], columns: tuple[str, ...] = ()
) -> Table:
    """Return a table of cells by row and column; `columns` left out are those of the cells."""
    from fedloom.results.estimates import crossed

    columns = columns or tuple(dict.fromkeys(column for _, column, _ in cells))
    rows = [(*row, *(found.get(column, "") for column in columns)) for row, found in crossed(cells).items()]
    return Table(title, (*heads, *columns), tuple(rows))
