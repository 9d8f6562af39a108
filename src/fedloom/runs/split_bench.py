"""What steps of a run's split training take over a link, course by course, beside what the formulas say.

Measured alone: a client's computing, the server's for 1, 2, ... clients together. Then each course runs with the real
server and emulated clients and links (`split.emulation`), and is held against the formulas (`split.course_costs`).
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import AtLeast, NonNegative, Positive, check_ranges
from fedloom.base.tables import Table
from fedloom.base.tree import Tree
from fedloom.contracts.language import Encoded, LanguageModel, language_model
from fedloom.runs.prepared import prepare
from fedloom.runs.split_answers import split_settings
from fedloom.runs.tuning import TuningRun
from fedloom.split.body import Middle
from fedloom.split.course_costs import COURSES, Course, Parts
from fedloom.split.emulation import Client, Trial, loops, overlapped, serial, two_in_flight
from fedloom.split.ends import Ends, Said, Turn
from fedloom.split.lockstep import Lockstep
from fedloom.split.messages import Message
from fedloom.split.sub_servers import averaged_steps
from fedloom.split.wire import WIRES

__all__ = ["BenchSettings", "bench_split", "bench_table"]

_MBIT = 1e6 / 8
_MICROS, _SUB_SERVERS = 4, 2
"""Micro-batches of a step of which two are in flight; servers of the hierarchical course."""
_CLIENT = "c0"
_TAKES: Mapping[Course, Callable[[Sequence[Client], Sequence[Lockstep], range], None]] = {
    "serial": serial,
    "loops": loops,
    "overlapped": overlapped,
    "two in flight": two_in_flight,
}


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """The link and how long is measured."""

    clients: tuple[int, ...] = (1, 2, 4, 8)
    rtt_ms: NonNegative = 20.0
    """There and back."""
    mbit: Positive = 100.0
    """A client's link."""
    server_mbit: Positive = 1000.0
    """The server's."""
    steps: AtLeast = 12
    """Steps of each course that are timed."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.clients or min(self.clients) < 1 or max(self.clients) > 64:
            raise ConfigError(f"clients: found {list(self.clients)}, allowed are numbers from 1 to 64, one at least.")


def bench_split(run: TuningRun, settings: BenchSettings) -> dict[str, Any]:
    """Return what the parts of a step take, and each course for each number of clients, predicted and measured [s].

    The rows are those of the first client's first batch; every emulated client has as many.
    """
    split, ready = split_settings(run), prepare(run)
    model = language_model(ready.model)
    texts = list(next(iter(ready.shards.values())).items[: run.local.batch])
    seconds, messages = _client(run, model, texts)
    trial = Trial(
        model=model,
        split=split,
        local=run.local,
        seconds=seconds,
        messages=messages,
        latency_s=settings.rtt_ms / 2000,
        client_bytes_s=settings.mbit * _MBIT,
        server_bytes_s=settings.server_mbit * _MBIT,
        steps=settings.steps,
    )
    parts = Parts(
        client_s=sum(seconds),
        server_s={count: _server_s(trial, count) for count in sorted({1, *settings.clients})},
        latency_s=trial.latency_s,
        message_bytes=messages[0].packet.numel(),
        client_bytes_s=trial.client_bytes_s,
        server_bytes_s=trial.server_bytes_s,
    )
    return {
        "tokens": messages[0].n_tokens,
        "message_bytes": parts.message_bytes,
        "client_s": parts.client_s,
        "net_s": parts.net_s,
        "server_s": {str(count): one for count, one in parts.server_s.items()},
        "share": parts.share(),
        "rows": [_measured(trial, parts, count) for count in settings.clients],
    }


def _client(
    run: TuningRun, model: LanguageModel, texts: Sequence[Encoded]
) -> tuple[tuple[float, float, float], tuple[Message, Message]]:
    """Return what the parts of a client's step take, the median of seconds of its CPU, and what it sends."""
    leaves = {name: value[None].clone().requires_grad_() for name, value in model.trainable.items()}
    ends = Ends.of(model, split_settings(run).one_cut())
    steps = [_step(run, model, ends, leaves, texts) for _ in range(5)]
    one, two, three = (statistics.median(column) for column in zip(*(times for times, _ in steps), strict=True))
    return (one, two, three), steps[-1][1]


def _step(
    run: TuningRun, model: LanguageModel, ends: Ends, leaves: Tree, texts: Sequence[Encoded]
) -> tuple[tuple[float, float, float], tuple[Message, Message]]:
    """Return the seconds of a client's CPU before FWD, between BODY and GRAD and behind BACK, and what it sends."""
    split, seeds = split_settings(run), {_CLIENT: (0,)}
    cut, wire = split.one_cut(), WIRES[split.wire]
    body = split.body(Middle.of(model, [cut]), {_CLIENT: cut}, run.local, (_CLIENT,))
    at_s = [time.thread_time()]
    turn = Turn(ends, run.task, leaves, [list(texts)], Said((_CLIENT,), 0, 0, wire), ())
    ahead = turn.ahead()
    at_s.append(time.thread_time())
    answer, _ = body.forward(ahead, seeds)
    at_s.append(time.thread_time())
    slopes = turn.loss(answer)
    at_s.append(time.thread_time())
    back, _, _ = body.backward(slopes, seeds)
    at_s.append(time.thread_time())
    turn.back(back)
    at_s.append(time.thread_time())
    return (at_s[1] - at_s[0], at_s[3] - at_s[2], at_s[5] - at_s[4]), (ahead[0], slopes[0])


def _server_s(trial: Trial, count: int) -> float:
    """Return what the server takes for a step of so many clients whose messages are all there, with its journal."""
    names = _names(count)
    clients, took = trial.clients(names), list[float]()
    with tempfile.TemporaryDirectory(prefix="fedloom-bench-") as folder:
        server = trial.server(trial.body(names), names, Path(folder) / "round", took=took)
        for step in range(trial.steps + 1):
            for part in (0, 1):
                for promised in [server.submit(one.said(step, 0, part)) for one in clients]:
                    promised.result()
        server.close()
    return statistics.median(sum(took[at : at + 2]) for at in range(2, len(took), 2))  # the first one warms up


def _names(count: int) -> list[str]:
    return [f"c{k}" for k in range(count)]


def _measured(trial: Trial, parts: Parts, count: int) -> dict[str, Any]:
    """Return what each course takes for a step of so many clients."""
    courses: dict[str, Any] = {}
    for course in COURSES:
        costs, servers = parts, min(_SUB_SERVERS, count)
        if course == "hierarchical":
            wall_s, average_s = averaged_steps(trial, count, servers)
            costs = replace(parts, average_s=average_s)
        else:
            wall_s = _course_s(trial, course, count)
        predicted_s = costs.predicted_s(course, count, servers=servers)
        courses[course] = {"predicted_s": predicted_s, "measured_s": wall_s, "ratio": wall_s / predicted_s}
    return {"clients": count, "eta": parts.eta(count), "courses": courses}


def _course_s(trial: Trial, course: Course, count: int) -> float:
    """Return the wall seconds of a step of a course in this process, the first one not counted."""
    names, take = _names(count), _TAKES[course]
    clients = trial.clients(names)
    n_micro, in_flight = (_MICROS, 2) if course == "two in flight" else (1, 1)
    shares = [[name] for name in names] if course == "serial" else [names]
    with tempfile.TemporaryDirectory(prefix="fedloom-bench-") as folder:
        servers = [
            trial.server(trial.body(own), own, Path(folder) / own[0], n_micro=n_micro, in_flight=in_flight)
            for own in shares
        ]
        take(clients, servers, range(1))
        start_s = time.monotonic()
        take(clients, servers, range(1, 1 + trial.steps))
        wall_s = time.monotonic() - start_s
        for server in servers:
            server.close()
    return wall_s / trial.steps / n_micro


def bench_table(found: dict[str, Any]) -> Table:
    """Return what was found as a table: milliseconds of a step of all clients."""
    rows = [
        (
            str(row["clients"]),
            f"{row['eta']:.2f}",
            course,
            f"{1000 * one['predicted_s']:.1f}",
            f"{1000 * one['measured_s']:.1f}",
            f"{one['ratio']:.2f}",
            f"{row['courses']['serial']['measured_s'] / one['measured_s']:.2f}",
        )
        for row in found["rows"]
        for course, one in row["courses"].items()
    ]
    share = f"{found['share']:.2f}"
    title = (
        f"{found['tokens']} tokens a client, client {1000 * found['client_s']:.1f} ms, "
        f"link {1000 * found['net_s']:.1f} ms, server {1000 * found['server_s']['1']:.1f} ms ({share} of a step)"
    )
    header = ("clients", "eta", "course", "predicted, ms", "measured, ms", "ratio", "over serial")
    return Table(title, header, tuple(rows))
