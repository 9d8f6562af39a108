"""Rounds of simulated clients whose rows are made when a client is asked for, and what the rounds take.

A round, its ledger and its checkpoint are those of any run; the model is a small perceptron, so that what shows is what
a client costs beside its training.
"""

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import Settings, forget_peak, peak_bytes
from fedloom.base import rng
from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout, flatten
from fedloom.contracts.federated import (
    Engine,
    Job,
    ModelFamily,
    Report,
    Shard,
    Task,
    Work,
)
from fedloom.contracts.labelled import ClassifierModel, Row
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.plain import plain_plan
from fedloom.federated.rounds import begin, step
from fedloom.runs.departures import round_lines
from fedloom.runs.directory import RunDirectory
from fedloom.runs.schedule import keep_schedule
from fedloom.runs.stage import Stage
from fedloom.runs.states import save_state

__all__ = ["FULL", "QUICK", "Case", "Measured", "measured"]

WIDTH, CLASSES, EXAMPLES = 16, 10, 10  # numbers of a row, classes, rows of a client
TOGETHER = 100  # clients that train together


@dataclass(frozen=True)
class Case:
    """Rounds that are measured."""

    clients: int
    asked: int
    """Clients of a round."""
    rounds: int
    engine: str = "cohort"

    @property
    def name(self) -> str:
        """The case as one word of a command line."""
        return f"{self.engine}:{self.clients}:{self.asked}:{self.rounds}"


@dataclass(frozen=True, kw_only=True)
class Measured(Case):
    """A case and what it took: seconds of processor and bytes of the server's process, which trains unless actors do.

    Processor time is what other programs on the machine change least.
    """

    wall_s: float
    """By the clock, of all rounds."""
    cpu_s: float
    """Of all rounds."""
    data_s: float
    """Of it, making the clients' rows."""
    carried_s: float
    """Of it, what the engine did: rows and training, or sending jobs to actors and taking their reports."""
    held_bytes: int
    """What the process holds before the first round: libraries, model, names of all clients."""
    peak_bytes: int
    """The most that it held in the rounds."""
    ledger_bytes: int
    schedule_bytes: int
    upload_bytes: int
    """Of one client in one round."""

    @property
    def client_rounds(self) -> int:
        """Trainings."""
        return self.asked * self.rounds

    def ms(self, seconds_s: float) -> float:
        """Return milliseconds of a client in a round, from seconds of all rounds."""
        return 1000 * seconds_s / self.client_rounds

    @property
    def server_ms(self) -> float:
        """What is not the engine's of a client in a round: decoding, checking, summing, writing down."""
        return self.ms(self.cpu_s - self.carried_s)


FULL = (
    Case(1_000, 1_000, 20),
    Case(10_000, 1_000, 20),
    Case(100_000, 1_000, 20),
    Case(1_000, 1_000, 10),
    Case(10_000, 10_000, 3),
    Case(100_000, 100_000, 1),
    Case(10_000, 10_000, 2, "ray"),
    Case(1_000_000, 1_000, 2),
)
"""The constants come from the cases before the last, which says whether the plan for a million holds."""
QUICK = (Case(200, 100, 1), Case(400, 100, 1), Case(400, 400, 1))


class MadeShards(Mapping[str, Shard]):
    """The clients' rows, made when asked for: a function of the client's name and of nothing else."""

    def __init__(self, clients: int, task: Task, model: ClassifierModel) -> None:
        self._clients, self._task, self._model = clients, task, model
        self.made_s = 0.0

    def __getitem__(self, client: str) -> Shard:
        start_s = time.process_time()
        random = rng.numpy_random("scale", client)
        label_E = random.integers(CLASSES, size=EXAMPLES)
        inputs_ED = random.standard_normal((EXAMPLES, WIDTH))
        inputs_ED[range(EXAMPLES), label_E] += 2.0  # a row tells its class by one of its numbers
        rows = (Row(tuple(row), str(label)) for row, label in zip(inputs_ED.tolist(), label_E.tolist(), strict=True))
        shard = Shard(tuple(self._task.encode(row, self._model) for row in rows))
        self.made_s += time.process_time() - start_s
        return shard

    def __iter__(self) -> Iterator[str]:
        return (f"c{number:07d}" for number in range(self._clients))

    def __len__(self) -> int:
        return self._clients


def work_of(case: Case) -> Work:
    """Return the client half of a training of so many clients, none of whom holds anything yet."""
    model = lookup(ModelFamily, "mlp")(inputs=(WIDTH,), classes=CLASSES, hidden=(16,)).build(
        seed=0, device=torch.device("cpu")
    )
    task = lookup(Task, "classify")()
    shards = MadeShards(case.clients, task, model)
    local = LocalSettings(lr=0.05, optimiser="sgd", schedule="constant", steps=2, batch=5)
    more = {"weighting": "samples", "clients_per_round": case.asked}
    plan = plain_plan(tuple(shards), local, Layout.of_tree(model.trainable), rounds=case.rounds, **more)
    return Work(plan=plan, model=model, task=task, shards=shards, private={}, keep_ready=TOGETHER)


class Clock:
    """A carrier's seconds of processor: those between asking for a report and having it."""

    def __init__(self, carrier: Any) -> None:
        self._carrier, self.carried_s, self.upload_bytes = carrier, 0.0, 0

    def carry(self, jobs: Iterable[Job]) -> Iterator[Report]:
        """Yield the reports, and count the seconds until each came."""
        reports = iter(self._carrier(jobs))
        while True:
            start_s = time.process_time()
            report = next(reports, None)
            self.carried_s += time.process_time() - start_s
            if report is None:
                return
            self.upload_bytes = report.packet.nbytes
            yield report


def measured(case: Case) -> Measured:
    """Return what the rounds of a case take, in this process."""
    work, settings = work_of(case), Settings()
    cohort = lookup(Engine, "cohort")(width=TOGETHER)
    engine = cohort if case.engine == "cohort" else lookup(Engine, case.engine)(inner=cohort)
    clock, stage = Clock(engine.start(work)), Stage("", "", work)
    state = begin(work.plan, flatten(work.model.trainable))
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory.create(Path(folder) / "run", {"run.toml": ""})
        held = forget_peak(settings)
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        keep_schedule(directory, [stage])
        for _ in range(case.rounds):
            state, record = step(work.plan, state, clock.carry)
            directory.append("ledger.jsonl", round_lines(record, stage, state))
            directory.save(state.round, save_state(state, work.plan.layout, stage=0, wall_s=0.0))
        wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
        sizes = {name: (directory.path / f"{name}.jsonl").stat().st_size for name in ("ledger", "schedule")}
    return Measured(
        **asdict(case),
        wall_s=wall_s,
        data_s=work.shards.made_s if isinstance(work.shards, MadeShards) else 0.0,
        carried_s=clock.carried_s,
        cpu_s=cpu_s,
        held_bytes=held,
        peak_bytes=peak_bytes(settings),
        ledger_bytes=sizes["ledger"],
        schedule_bytes=sizes["schedule"],
        upload_bytes=clock.upload_bytes,
    )
