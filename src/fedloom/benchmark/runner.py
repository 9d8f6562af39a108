"""The cells of a suite, carried out by a few worker processes that live as long as the suite.

A cell is an ordinary run in an ordinary run directory, computed by the code of `fedloom run`: what a worker did before
bears on nothing. Killed at any moment and started again, a suite leaves finished cells alone and goes on with the rest.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import fmean
from typing import cast

import torch

from fedloom import api
from fedloom.base import config
from fedloom.base.errors import FedloomError, RunError
from fedloom.base.files import disk_errors, write_atomic
from fedloom.base.outside import Travelling
from fedloom.benchmark.claims import Conclusion, conclude
from fedloom.benchmark.suite import Cell, Suite, cells_of, check_directory, load_suite_directory
from fedloom.diversity.describe import describe_run, write
from fedloom.runs.directory import RunDirectory
from fedloom.runs.tuning import TuningRun

__all__ = [
    "Ended",
    "carry_out",
    "conclude_directory",
    "describe_data",
    "opened_directory",
    "remaining_s",
    "waiting_cells",
]


@dataclass(frozen=True)
class Ended:
    """A cell has ended: well, or with a problem in one line."""

    cell: Cell
    wall_s: float
    problem: str = ""


def conclude_directory(folder: Path) -> Conclusion:
    """Summarise a suite directory, decide its claims and write `summary.json`."""
    told = conclude(load_suite_directory(folder))
    write_atomic(folder / "summary.json", json.dumps(told.record(), indent=1, allow_nan=False) + "\n")
    return told


def describe_data(suite: Suite, folder: Path) -> list[str]:
    """Measure the diversities of each data set with a finished run, unless they are there; return what was refused.

    They are those of the suite's first seed, with the model of its first method.
    """
    problems: list[str] = []
    first = {cell.data: cell for cell in reversed(cells_of(suite))}
    for data in suite.data:
        cell = first[data]
        if not RunDirectory(folder / cell.folder).complete or (folder / data / "diversity.json").is_file():
            continue
        try:
            write(describe_run(cell.run, with_model=True), folder / data)
        except FedloomError as error:
            problems.append(f"{data}: its diversities were not measured: {error}")
    return problems


@contextlib.contextmanager
def opened_directory(suite: Suite, folder: Path) -> Generator[None]:
    """Hold the suite's directory, made or gone on with, for this process alone.

    One of another suite, of something else, or at which another process is at work is refused and left as it is.
    """
    if not (folder / "suite.toml").is_file() and folder.exists() and not _is_empty(folder):
        raise RunError(f"{folder}: exists, is not empty and has no suite.toml; choose another --out.")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with RunDirectory(folder).held():
        _write_suite(suite, folder / "suite.toml")
        yield


def _is_empty(folder: Path) -> bool:
    """Return whether a folder holds nothing but the lock of a suite that was stopped before it began."""
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= {".lock"}


def _write_suite(suite: Suite, path: Path) -> None:
    if path.is_file() and any(path.parent.glob("*/*/run.toml")):  # a suite refused in every cell may be mended
        check_directory(suite, path.parent)
    text = config.dump(suite)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomic(path, text)


def waiting_cells(suite: Suite, folder: Path) -> list[Cell]:
    """Return the cells that have not ended well; a run directory that holds another run is refused."""
    waiting: list[Cell] = []
    for cell in cells_of(suite):
        directory = RunDirectory(folder / cell.folder)
        if (directory.path / "run.toml").is_file():
            api.resume(directory.path, expected=cell.run)  # for its refusals: nothing runs before its events are asked
        if not directory.complete:
            waiting.append(cell)
    return waiting


def remaining_s(ended: Sequence[Ended], waiting: Sequence[Cell], *, jobs: int) -> float:
    """Return a guess of the time that is left: a cell takes as long as those of its kind, or as the mean of all."""
    times: dict[tuple[str, str], list[float]] = {}
    for one in ended:
        times.setdefault((one.cell.data, one.cell.method), []).append(one.wall_s)
    every = [one.wall_s for one in ended]
    return sum(fmean(times.get((cell.data, cell.method), every)) for cell in waiting) / jobs


@dataclass
class _Worker:
    """A process and its pipe, and what it is at work on since when."""

    process: BaseProcess
    pipe: Connection
    cell: Cell
    since_s: float

    @classmethod
    def started(cls, cell: Cell, folder: Path) -> "_Worker":
        """Return a new worker at work on its first cell."""
        ours, theirs = connection.Pipe()
        process = _context().Process(target=_work, args=(theirs,))
        with _single_threaded():
            process.start()
        theirs.close()  # so that the pipe ends with the process
        worker = cls(process, cast(Connection, ours), cell, 0.0)
        worker.give(cell, folder)
        return worker

    def give(self, cell: Cell, folder: Path) -> None:
        """Send the next cell."""
        self.cell, self.since_s = cell, time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # it has died: its answer will say so
            self.pipe.send((Travelling(), folder / cell.folder, cell.run))

    def answer(self) -> Ended:
        """Return how its cell ended; a process that died took its cell with it, and nothing else."""
        try:
            problem = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            problem = f"its worker {_how_ended(self.process.exitcode or 0)}"
        return Ended(self.cell, time.monotonic() - self.since_s, problem)

    def dismiss(self) -> None:
        """Let the process end: a closed pipe tells it to."""
        self.pipe.close()
        self.process.join()


def _context() -> SpawnContext | ForkServerContext:
    """Return how workers start: from one process that has imported the libraries; a GPU cannot be used after a fork."""
    if torch.cuda.is_available():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["fedloom.benchmark.runner", "fedloom.models.causal_lm"])
    return context


def _how_ended(code: int) -> str:
    killed = f"was killed by signal {-code}: too little memory?"
    return killed if code < 0 else f"ended with code {code}: a bug, whose traceback stands above."


def carry_out(cells: Sequence[Cell], folder: Path, *, jobs: int) -> Generator[Ended]:
    """Run the cells, `jobs` at a time, yielding each when it has ended; workers end with the generator."""
    waiting = list(cells)
    busy: list[_Worker] = []
    try:
        while busy or waiting:
            while waiting and len(busy) < jobs:
                busy.append(_Worker.started(waiting.pop(0), folder))
            heard = connection.wait([worker.pipe for worker in busy])
            for worker in [one for one in busy if one.pipe in heard]:
                ended = worker.answer()
                busy.remove(worker)
                if waiting and worker.process.is_alive():
                    worker.give(waiting.pop(0), folder)
                    busy.append(worker)
                else:
                    worker.dismiss()
                yield ended
    finally:
        for worker in busy:
            worker.process.terminate()
            worker.dismiss()


@contextlib.contextmanager
def _single_threaded() -> Generator[None]:
    """Let processes that start here use one thread each: the libraries read this when they are imported."""
    names = ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM")
    before: Mapping[str, str] = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    yield
    for name in names:
        os.environ.pop(name)
    os.environ.update(before)


def _work(pipe: Connection) -> None:
    """Carry out what comes through the pipe until it is closed; Ctrl-C is for the parent to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            _, path, run = pipe.recv()
            pipe.send(_problem(path, run, pipe))


def _problem(path: Path, run: TuningRun, pipe: Connection) -> str:
    """Run a cell or the rest of it; return what was refused, "" if nothing was."""
    try:
        _run(path, run, pipe)
    except FedloomError as error:
        return " ".join(str(error).split())
    except OSError as error:
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    return ""


def _run(path: Path, run: TuningRun, pipe: Connection) -> None:
    if (path / "run.toml").is_file():
        _, events = api.resume(path, expected=run)
    else:
        source = f"# A cell of {path.parents[1].name}/suite.toml, made by `fedloom bench`.\n{config.dump(run)}"
        events = api.start(run, path, source=source)
    for _ in events:
        if pipe.poll():  # its other end is closed, as the parent was killed: whoever goes on needs this cell
            raise SystemExit(1)
