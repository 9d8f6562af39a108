"""Running from Python: load a run file, start it, go on with it."""

import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import reduce
from pathlib import Path

from fedloom.base import config
from fedloom.base.errors import FedloomError, RunError
from fedloom.base.files import write_atomic
from fedloom.contracts.federated import Report
from fedloom.results.classes import class_lines
from fedloom.results.show import outcome, privacy_line, show_table, stage_lines
from fedloom.results.signal import signal_lines
from fedloom.runs.accounts import has_spent
from fedloom.runs.directory import RunDirectory
from fedloom.runs.execute import Elsewhere, Event, RoundDone, execute, run_files
from fedloom.runs.tuning import TuningRun, read_run, run_of

__all__ = ["load_run", "resume", "start"]

Observer = Callable[[Report], None]


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> TuningRun:
    """Return the run of a TOML file with `key=value` overrides applied; wrong input raises a FedloomError."""
    return read_run(reduce(config.apply_override, overrides, config.read_toml(Path(path))), Path(path).parent)


def start(
    run: TuningRun,
    out: str | Path,
    *,
    source: str = "",
    on_report: Observer = lambda _: None,
    elsewhere: Elsewhere | None = None,
) -> Generator[Event]:
    """Make the run directory `out` and run to the end, yielding an event for each round and evaluation.

    `source` is kept as `source.toml`: the text of the run file and its overrides. `elsewhere` are clients on machines
    of their own, of whom nothing is read here.
    """
    files = run_files(run, source) | dict(elsewhere.files if elsewhere else {})
    directory = RunDirectory.create(Path(out), files)
    return _or_nothing(directory, _to_the_end(run, directory, on_report, elsewhere))


def resume(
    out: str | Path,
    *,
    expected: TuningRun | None = None,
    on_report: Observer = lambda _: None,
    elsewhere: Elsewhere | None = None,
) -> tuple[TuningRun, Generator[Event]]:
    """Return the run of a directory and the events of its remainder (none if it is complete).

    `expected`: the run as it is meant to be; a difference to the directory's own is refused, naming the keys.
    """
    directory = RunDirectory.open(Path(out))
    run = run_of(directory)
    if expected is not None and expected != run:
        keys = ", ".join(config.differing_keys(config.table_of(run), config.table_of(expected)))
        raise RunError(f"{out}: the run differs from its directory in {keys}; undo that or start a new run.")
    return run, _to_the_end(run, directory, on_report, elsewhere)


def _or_nothing(directory: RunDirectory, events: Iterator[Event]) -> Generator[Event]:
    """Yield the events of a new run; one that is refused before its first round leaves no directory behind.

    The command as it is meant to be then finds its place free. What stages asked of models may have cost hours: kept.
    """
    begun = False
    try:
        for event in events:
            begun = begun or isinstance(event, RoundDone)
            yield event
    except RunError:  # the disk, or the directory itself: mended, `resume` goes on
        raise
    except FedloomError:
        homes = [directory.path / name for name in ("prepared", "refined")]
        kept = any(path.is_file() for home in homes for path in home.rglob("*"))
        if not (begun or kept or has_spent(directory)):
            shutil.rmtree(directory.path)
        raise


def _to_the_end(
    run: TuningRun, directory: RunDirectory, on_report: Observer, elsewhere: Elsewhere | None
) -> Generator[Event]:
    with directory.held():
        if directory.complete and directory.mended():  # a complete run that lost lines goes on where it has them
            return
        yield from execute(run, directory, on_report=on_report, elsewhere=elsewhere)
        write_atomic(directory.path / "report.md", _report(directory))


def _report(directory: RunDirectory) -> str:
    found = outcome(directory)
    cost = "\n".join(f"- {name}: {value:,.0f}" for name, value in found.cost.items())
    spent = f"\n## Privacy\n\n{line}\n" if (line := privacy_line(found)) else ""
    stages = "".join(f"- {line}\n" for line in (*stage_lines(found), *class_lines(found), *signal_lines({0: found})))
    stages = f"\n## Stages\n\n{stages}" if stages else ""
    return f"# {directory.path.name}\n\n{show_table(found).markdown()}{stages}{spent}\n## Cost\n\n{cost}\n"
