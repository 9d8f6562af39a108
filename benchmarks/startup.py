"""Entry f: from the start of a process to its first step, to an import and to `fedloom --help`.

    python -m benchmarks.startup [--device cuda] [--quick]

Every measurement is a fresh process with warm file caches; a trl process beside it, for what is usual.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._common import ROOT, Figure, Sample, Settings, Target, entry, environment, ratio

if TYPE_CHECKING:  # the processes that are measured import as late as they would without this module
    from fedloom.contracts.federated import Job, Report

__all__ = ["first_step", "main"]


def main(settings: Settings) -> list[Figure]:
    """Measure how long fedloom takes to begin."""
    repeats = settings.repeats(5)
    steps = {"fedloom": list[float](), "trl": list[float]()}
    for _ in range(1 + repeats):
        for part, seconds in steps.items():
            seconds.append(_until(part, settings))
    ours, other = (Sample(tuple(steps[part][1:])) for part in ("fedloom", "trl"))
    first = Figure(
        entry="f",
        what="process start to the end of the first step, embedded model",
        value=ours.median,
        unit="s",
        target=Target("<=", 2.0),
        ours=ours,
        work={"clients": 20, "steps": 1, "batch": 16},
    )
    imported = Sample(tuple(_wall([sys.executable, "-c", "import fedloom"]) for _ in range(repeats)))
    command = str(Path(sys.executable).with_name("fedloom"))
    helped = Sample(tuple(_wall([command, "--help"]) for _ in range(repeats)))
    return [
        first,
        ratio("f", "process start to first step: trl over fedloom", ours=ours, other=other, work={"steps": 1}),
        Figure(entry="f", what="python -c 'import fedloom'", value=imported.median, unit="s", ours=imported),
        Figure(entry="f", what="fedloom --help", value=helped.median, unit="s", ours=helped),
    ]


def _until(part: str, settings: Settings) -> float:
    """Return the seconds from before a process starts until its first step has ended."""
    start_s = time.monotonic()
    code = f"from benchmarks.startup import first_step; print(first_step('{part}', '{settings.device}'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, env=environment()
    )
    if done.returncode:
        raise RuntimeError(f"the first step of {part} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    # CLOCK_MONOTONIC is one clock for all processes of a machine; ending a process is not part of a first step.
    return float(done.stdout.split()[-1]) - start_s


def first_step(part: str, device: str) -> float:
    """Take one step and return the clock's reading after it."""
    return {"fedloom": _ours, "trl": _trl}[part](device)


def _ours(device: str) -> float:
    from fedloom.federated.rounds import begin, step
    from fedloom.runs.prepared import prepare
    from fedloom.runs.tuning import read_run

    table = {"device": device, "data": {"name": "world", "n_clients": 20}, "local": {"steps": 1, "batch": 16}}
    ready = prepare(read_run(table))
    work = ready.stages[0].work
    plan = work.plan
    carrier = ready.run.engine.resolved(work, n_clients=plan.clients_per_round).start(work)
    ended: list[float] = []

    def timed(jobs: "Iterable[Job]") -> "Iterator[Report]":
        for report in carrier(jobs):
            ended.append(time.monotonic())
            yield report

    step(plan, begin(plan, ready.layout.row({"": ready.shared})), timed)
    return ended[0]


def _trl(device: str) -> float:
    from benchmarks._common import silence
    from benchmarks._shapes import EMBEDDED
    from benchmarks._trainers import TrlClient

    silence()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings("cuda" if device == "cuda" else "cpu")
        client = TrlClient(replace(EMBEDDED, clients=1, steps=1), Path(folder), settings)
        client.train(client.state(), next(iter(client.records)))
    return time.monotonic()


def _wall(command: list[str]) -> float:
    start_s = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True, env=environment())
    return time.perf_counter() - start_s


if __name__ == "__main__":
    entry(main)
