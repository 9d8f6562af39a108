"""A tuning run from its record to a finished run directory, as a generator of events.

Every event is on disk before it is yielded. Killed at any moment and started again with the same directory, a run ends
with the same bytes: what is computed depends on the checkpoint alone, and the logs are cut back to it.
"""

import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor

from fedloom.base import config
from fedloom.base.errors import FedloomError, MemoryExceededError, RunError
from fedloom.base.files import file_name, file_sha256, json_sha256, write_atomic
from fedloom.base.mean import Mean
from fedloom.base.outside import plugin_files
from fedloom.base.tree import Tree, flatten
from fedloom.contracts.federated import Carrier, Engine, Job, Plan, Report
from fedloom.contracts.lineage import lineage_table, write_lineage
from fedloom.federated.rounds import RoundRecord, State, begin, ended, step
from fedloom.runs.accounts import SPENDING, Spending, restate, write_card
from fedloom.runs.apart import prepare_server
from fedloom.runs.attack_measures import attack_measures
from fedloom.runs.attendance import Absent, Attendance
from fedloom.runs.audit_log import AuditLog
from fedloom.runs.choosing import chosen, considered, is_over
from fedloom.runs.departures import division_lines, round_lines, server_lines
from fedloom.runs.directory import AUDIT_LOG, Checkpoint, RunDirectory
from fedloom.runs.environment import dirty_diff, environment
from fedloom.runs.log_forwarding import forwarded
from fedloom.runs.measure import Ask, Evaluated, measure, models_of
from fedloom.runs.prepared import Prepared, prepare
from fedloom.runs.privacy import (
    lineage_of_result,
    privacy_lines,
    refuse_forgotten,
    with_lost_uses,
    worst_account,
    write_ahead,
)
from fedloom.runs.refining import Told, hide_texts, is_due, refined
from fedloom.runs.schedule import keep_schedule, participation
from fedloom.runs.stage import Stage
from fedloom.runs.states import load_state, save_state
from fedloom.runs.truth import write_truth
from fedloom.runs.tuning import TuningRun, pinned_text

__all__ = ["Elsewhere", "Event", "Note", "RoundDone", "execute", "run_files"]


@dataclass(frozen=True)
class RoundDone:
    """A round has ended."""

    stage: int
    n_stages: int
    record: RoundRecord
    wall_s: float
    params: Tree = field(default_factory=dict[str, Tensor], repr=False)
    """What the clients share after it, by name."""


@dataclass(frozen=True)
class Note:
    """What the run's owner should know, before the first step or after the last."""

    text: str


Event = RoundDone | Evaluated | Note


@dataclass(frozen=True)
class Elsewhere:
    """Clients that are on machines of their own: their names, and what carries jobs to them."""

    clients: tuple[str, ...]
    engine: Engine
    ask: Ask | None = None
    """Asks them for their scores; None where they are not asked."""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the run directory holds from its beginning of how they are reached, by name."""


def run_files(run: TuningRun, source: str) -> dict[str, str]:
    """Return the files that a run directory starts with."""
    files = {"run.toml": config.dump(run), "source.toml": source}
    files["environment.json"] = json.dumps(environment(), indent=1)
    if run.privacy.covers().private:
        files[SPENDING] = Spending.new(repeats=run.privacy.deterministic()).text
    if run.audit_log:
        files[AUDIT_LOG] = ""
    diff = dirty_diff()
    return plugin_files(run.plugins) | files | ({"dirty.diff": diff} if diff else {})


def execute(
    run: TuningRun,
    directory: RunDirectory,
    *,
    on_report: Callable[[Report], None] = lambda _: None,
    absent: Absent = MappingProxyType({}),
    elsewhere: Elsewhere | None = None,
) -> Iterator[Event]:
    """Run to the end from wherever the directory stands, yielding an event for each round and evaluation.

    `on_report` is told of each client's report while a round is under way. `absent` clients do not report in the rounds
    named, as far as `min_clients` allows. Where clients are `elsewhere` nothing of theirs is read here. Every line of
    metrics.jsonl also goes to the run's sinks (`log_forwarding`).
    Too little memory is refused with what to lower.
    """
    try:
        yield from forwarded(_execute(run, directory, on_report, absent, elsewhere), run, directory, Note)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, FedloomError) or not _is_memory(error):
            raise
        raise MemoryExceededError(
            f"{directory.path}: out of memory; lower local.batch, task.max_length or model.lora_rank, or set "
            "model.dtype = 'bfloat16', and start a new run."
        ) from error


def _is_memory(error: BaseException) -> bool:
    wordings = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(wording in str(error) for wording in wordings)


def _execute(
    run: TuningRun,
    directory: RunDirectory,
    on_report: Callable[[Report], None],
    absent: Absent,
    elsewhere: Elsewhere | None,
) -> Generator[Event]:
    private = run.privacy.covers().private
    if private:
        refuse_forgotten(directory)
    ready = prepare_server(run, elsewhere.clients) if elsewhere else prepare(run, directory.path)
    measured = partial(measure, ask=elsewhere.ask) if elsewhere else measure
    saved = directory.restore()
    if private and saved is not None:
        restate(directory, run.privacy)
    card = json.dumps({**ready.division.card, "encoded": ready.counts})
    # What cannot be carried out is refused before anything is measured.
    engine = elsewhere.engine if elsewhere else run.protocol.carried_by(_engine(directory, ready, ready.stages[0]))
    if saved is None:
        write_atomic(directory.path / "partition.json", card)
        attackers = {"malicious": list(ready.malicious)} if ready.malicious else {}
        write_truth(directory.path, {**run.data.truth(), **attackers})
    else:
        _check_unchanged(ready, directory, saved, card)
    keep_schedule(directory, ready.stages)
    if saved and saved.lost:
        yield Note(saved.lost)
    yield from map(Note, (*ready.notes, *participation(ready.stages)))
    initial_P = flatten(ready.shared).cpu()
    if saved is None:
        directory.append("ledger.jsonl", division_lines(ready))
        head = {"round": 0, "wall_s": 0.0, "leg": "", "phase": "attack"}
        directory.append("metrics.jsonl", _means(head, ready.bounds))
        plan = ready.stages[0].plan
        clock, first, state = _Clock(0.0), 0, begin(plan, initial_P)
        _account(directory, ready, plan, state)
        yield measured(ready, directory, state, ready.stages[0], phase="base", wall_s=clock.wall_s)
        _save(directory, ready, first, state, clock)
    else:
        clock, (first, state) = _Clock(saved.values["wall_s"]), load_state(saved, ready.layout)
        state = with_lost_uses(directory, ready.stages[0].plan, state)
    unrefined = saved is not None and bool(saved.values.get("unrefined"))
    for index in range(first, len(ready.stages)):
        going = unrefined and index == first
        yield from _train(ready, directory, index, state, clock, engine, on_report, absent, going, measured)
        state = begin(ready.stages[index].plan, initial_P)
        _save(directory, ready, index + 1, state, clock)


def _check_unchanged(ready: Prepared, directory: RunDirectory, saved: Checkpoint, card: str) -> None:
    """Refuse to go on with other settings, another start or other data than the checkpoint was made with."""
    told = saved.values.get("run_sha256"), saved.values.get("pinned_sha256")
    # A checkpoint of before knows the whole file alone.
    if file_sha256(directory.path / "run.toml") != told[0] and _pinned_sha256(directory) != told[1]:
        raise RunError(
            f"{directory.path / 'run.toml'}: changed since the checkpoint; undo that or start a new run. "
            "Allowed is to raise max_requests or max_tokens of a stage."
        )
    if saved.values.get("start", []) != lineage_table(ready.lineage):
        raise RunError(f"{directory.path}: the model that the run starts from tells another lineage; restore it.")
    known, told = directory.table("partition.json"), json.loads(card)
    told = {name: value for name, value in told.items() if name in known or name != "heterogeneity"}  # older: untold
    if known != told:
        raise RunError(
            f"{directory.path}: the data have changed since the run began, or partition.json has; restore them or "
            "start a new run."
        )


def _pinned_sha256(directory: RunDirectory) -> str:
    return json_sha256(pinned_text(directory.read("run.toml")))


def _train(
    ready: Prepared,
    directory: RunDirectory,
    index: int,
    state: State,
    clock: "_Clock",
    engine: Engine,
    on_report: Callable[[Report], None],
    absent: Absent,
    unrefined: bool,
    measured: Callable[..., Evaluated],
) -> Iterator[Event]:
    """Train a stage to its end; an `unrefined` state is that of a round that has ended and is to be refined first."""
    stage, run = ready.stages[index], ready.run
    plan, attendance = stage.plan, Attendance(directory, index, stage.plan, absent)
    audit_log = AuditLog(directory, stage, asked=run.audit_log)
    carrier = _observed(engine.start(stage.work), on_report)
    carrier = audit_log.carrier(attendance.carrier(carrier))
    while unrefined or not is_over(run, plan, state):
        record = None
        if not unrefined:
            write_ahead(directory, plan, state)
            closed = partial(attendance.close, state.round)
            state, record = step(plan, state, carrier, closed=closed, server=stage.server)
            directory.append("metrics.jsonl", _metrics(record, stage, clock.wall_s))
            directory.append("ledger.jsonl", round_lines(record, stage, state))
            cosines = audit_log.close(record)
            if ready.malicious:
                head = {"round": record.round, "wall_s": clock.wall_s, "leg": stage.name, "phase": "attack"}
                found = attack_measures(record, ready.malicious, cosines)
                directory.append("metrics.jsonl", _means(head, found))
            unrefined = is_due(ready, stage, state)
            if unrefined and ended(plan, state):  # what the last refinement is worth is told beside its start
                yield measured(ready, directory, state, stage, phase="tuned", wall_s=clock.wall_s)
            if unrefined:  # it may take hours and fail: a round that was paid for with privacy is not made again
                _save(directory, ready, index, state, clock, unrefined=True)
        if unrefined:
            state, unrefined = _refine(ready, directory, stage, state, clock), False
        asked, due = run.evaluation, run.evaluation.every and state.round % run.evaluation.every == 0
        if (asked.choose_by and ended(plan, state)) or (due and not ended(plan, state)):
            phase = f"round_{state.round:05d}"
            _account(directory, ready, plan, state)
            found = measured(ready, directory, state, stage, phase=phase, wall_s=clock.wall_s)
            state = considered(run, state, found.means) if asked.choose_by else state
            yield found
        if state.round % run.checkpoint_every == 0 or is_over(run, plan, state):
            _save(directory, ready, index, state, clock)
        if record:
            params = ready.layout.tree(state.params_P) if ready.shared else {}
            yield RoundDone(index, len(ready.stages), record, clock.wall_s, params)
    yield from _finished(ready, directory, stage, state, clock, measured)


def _finished(
    ready: Prepared,
    directory: RunDirectory,
    stage: Stage,
    state: State,
    clock: "_Clock",
    measured: Callable[..., Evaluated],
) -> Iterator[Event]:
    """Measure and keep what a stage has trained."""
    hide_texts(ready, directory)
    state, kept = chosen(state)
    if kept:
        head = {"round": kept - 1, "wall_s": clock.wall_s, "leg": stage.name, "phase": "choice"}
        directory.append("metrics.jsonl", [head | {"name": "kept_round", "total": float(kept), "weight": 1.0}])
    stated = _account(directory, ready, stage.plan, state)
    yield measured(ready, directory, state, stage, phase="final", wall_s=clock.wall_s)
    lineage = lineage_of_result(directory, ready, stage, state)
    for owner, params in models_of(ready, state, stage):
        folder = directory.path / (f"adapters/{file_name(owner)}" if owner else "adapter")
        ready.run.model.save(ready.model, params, str(folder))
        write_lineage(folder, lineage, stated)


def _refine(ready: Prepared, directory: RunDirectory, stage: Stage, state: State, clock: "_Clock") -> State:
    round, (state, told) = state.round - 1, refined(ready, stage, state, directory)
    head = {"round": round, "wall_s": clock.wall_s, "leg": stage.name, "phase": "refine"}
    directory.append("metrics.jsonl", _refinements(head, told))
    directory.append("ledger.jsonl", server_lines(round, stage, told))
    return state


def _account(directory: RunDirectory, ready: Prepared, plan: Plan, state: State) -> dict[str, Any]:
    """Write down what has been spent of the clients' privacy, where something protects it, and return the card."""
    if not plan.budgets:
        return {}
    lines = privacy_lines(plan, state, ready.origins)
    card = worst_account(plan, lines)
    directory.append("ledger.jsonl", lines)
    write_card(directory, card)
    return card


def _engine(directory: RunDirectory, ready: Prepared, stage: Stage) -> Engine:
    """Return the engine with what it chose when the run began: a resumed run must not choose anew."""
    path, dtype = directory.path / "chosen.json", str(next(ready.model.module.parameters()).dtype)
    if not path.is_file():
        engine = ready.run.engine.resolved(stage.work, n_clients=stage.plan.clients_per_round)
        table = config.table_of(replace(ready.run, engine=engine))["engine"]
        write_atomic(path, json.dumps({"engine": table, "dtype": dtype}, indent=1))
        return engine
    chosen = directory.table(path.name)
    if not isinstance(chosen.get("engine"), dict) or not isinstance(chosen.get("dtype"), str):
        raise RunError(f"{path}: is not what fedloom wrote; restore it from a copy or start a new run.")
    if chosen["dtype"] != dtype:
        raise RunError(
            f"{path}: the run began with base weights in {chosen['dtype']}, this machine would take {dtype}; resume it "
            "where it began, or set model.dtype and start a new run."
        )
    return config.build(TuningRun, {"engine": chosen["engine"]}).engine


class _Clock:
    """Wall time of the run, over all its processes."""

    def __init__(self, before_s: float) -> None:
        self._start_s = time.monotonic() - before_s

    @property
    def wall_s(self) -> float:
        return round(time.monotonic() - self._start_s, 3)


def _observed(carrier: Carrier, on_report: Callable[[Report], None]) -> Carrier:
    def told(report: Report) -> Report:
        on_report(report)
        return report

    def carry(jobs: Iterable[Job]) -> Iterator[Report]:
        return map(told, carrier(jobs))

    return carry


def _save(
    directory: RunDirectory, ready: Prepared, stage: int, state: State, clock: _Clock, *, unrefined: bool = False
) -> None:
    number = stage * (ready.run.rounds + 1) + state.round
    checkpoint = save_state(state, ready.layout, stage=stage, wall_s=clock.wall_s)
    values = {
        **checkpoint.values,
        "run_sha256": file_sha256(directory.path / "run.toml"),
        "pinned_sha256": _pinned_sha256(directory),
        "start": lineage_table(ready.lineage),
        **({"unrefined": True} if unrefined else {}),
    }
    if stage < len(ready.stages):  # the state of a stage, not the end of the last one
        values["lineage"] = lineage_table(lineage_of_result(directory, ready, ready.stages[stage], state))
    directory.save(number, replace(checkpoint, values=values), unrefined=unrefined)


def _refinements(head: Mapping[str, Any], told: Told) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for name, done in told:
        counts = {"done": 1.0, **done.counts}
        lines += [{**head, "name": f"{name}/{key}", "total": float(n), "weight": 1.0} for key, n in counts.items()]
        lines += _means(head, {f"{name}/{key}": score for key, score in done.scores.items()})
    return lines


def _means(head: Mapping[str, Any], found: Mapping[str, Mean]) -> list[dict[str, Any]]:
    return [
        {**head, "name": name, "total": one.total, "weight": one.weight, "mean": True} for name, one in found.items()
    ]


def _metrics(record: RoundRecord, stage: Stage, wall_s: float) -> list[dict[str, Any]]:
    head = {"round": record.round, "wall_s": wall_s, "leg": stage.name, "phase": "train"}
    plain = {"lr": record.lr, "server_gain": record.gain, "delta_norm": record.delta_norm}
    plain |= {f"aggregator_{name}": value for name, value in record.measures.items()}
    plain |= {"wire_bytes_per_token": told} if (told := record.bytes_per_token) else {}
    lines = [head | {"name": name, "total": value, "weight": 1.0} for name, value in plain.items()]
    return [*lines, head | {"name": "train_loss", "total": record.loss.total, "weight": record.loss.weight}]
