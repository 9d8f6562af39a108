"""What steps of a run's split training take over a link, course by course, beside what the formulas say.

Measured alone: a client's computing, the server's for 1, 2, ... clients together. Then each course runs with the real
server and emulated clients and links (`split.emulation`), and is held against the formulas (`split.course_costs`).
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import AtLeast, NonNegative, Positive, check_ranges
from fedloom.base.tables import Table
from fedloom.contracts.language import Encoded, LanguageModel, language_model
from fedloom.runs.prepared import prepare
from fedloom.runs.split_answers import split_settings
from fedloom.runs.tuning import TuningRun
from fedloom.split.body import Body, Middle
from fedloom.split.carrier import SplitSettings
from fedloom.split.course_costs import COURSES, Course, Parts
from fedloom.split.emulation import Client, Pipe, loops, overlapped, serial, two_in_flight
from fedloom.split.ends import Ends, Said, Turn
from fedloom.split.lockstep import Lockstep
from fedloom.split.messages import Message
from fedloom.split.sub_servers import Share, averaged_steps
from fedloom.split.wire import WIRES

__all__ = ["BenchSettings", "bench_split", "bench_table"]

_MBIT = 1e6 / 8
_MICROS = 4
"""Micro-batches of a step of which two are in flight."""


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
    steps: AtLeast = 6
    """Steps of each course that are timed."""
    servers: AtLeast = 2
    """Sub-servers of the hierarchical course."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.clients or min(self.clients) < 1 or max(self.clients) > 64:
            raise ConfigError(f"clients: found {list(self.clients)}, allowed are numbers from 1 to 64, one at least.")


@dataclass(frozen=True)
class _Bench:
    """What all courses share."""

    settings: BenchSettings
    split: SplitSettings
    run: TuningRun
    model: LanguageModel
    middle: Middle
    seconds: tuple[float, float, float]
    messages: tuple[Message, Message]
    folder: Path

    def clients(self, count: int) -> list[Client]:
        shared = Pipe(self.settings.server_mbit * _MBIT)
        latency_s = self.settings.rtt_ms / 2000
        return [
            Client(f"c{k}", self.seconds, self.messages, latency_s, Pipe(self.settings.mbit * _MBIT), shared)
            for k in range(count)
        ]

    def body(self, names: Sequence[str]) -> Body:
        cut = self.split.one_cut()
        return self.split.body(self.middle, dict.fromkeys(names, cut), self.run.local, tuple(names))

    def server(
        self, names: Sequence[str], *, n_micro: int = 1, in_flight: int = 1, took: list[float] | None = None
    ) -> Lockstep:
        def noted(_: Sequence[Message], __: float, computed_s: float) -> None:
            if took is not None:
                took.append(computed_s)

        return Lockstep(
            body=self.body(names),
            clients=tuple(names),
            seed=(0,),
            lr=self.run.local.lr,
            folder=Path(tempfile.mkdtemp(dir=self.folder)),
            n_micro=n_micro,
            in_flight=in_flight,
            noted=noted,
        )


def bench_split(run: TuningRun, settings: BenchSettings) -> dict[str, Any]:
    """Return what the parts of a step take, and each course for each number of clients, predicted and measured [s].

    The rows are those of the first client's first batch; every emulated client has as many.
    """
    split = split_settings(run)
    ready = prepare(run)
    model = language_model(ready.model)
    texts = list(next(iter(ready.shards.values())).items[: run.local.batch])
    seconds, messages = _client(run, model, split, texts)
    with tempfile.TemporaryDirectory(prefix="fedloom-bench-") as folder:
        bench = _Bench(
            settings, split, run, model, Middle.of(model, [split.one_cut()]), seconds, messages, Path(folder)
        )
        counts = sorted({1, *settings.clients})
        parts = Parts(
            client_s=sum(seconds),
            server_s={count: _server_s(bench, count) for count in counts},
            latency_s=settings.rtt_ms / 2000,
            message_bytes=messages[0].packet.numel(),
            client_bytes_s=settings.mbit * _MBIT,
            server_bytes_s=settings.server_mbit * _MBIT,
        )
        found = [_measured(bench, parts, count) for count in settings.clients]
    return {
        "tokens": messages[0].n_tokens,
        "message_bytes": parts.message_bytes,
        "client_s": parts.client_s,
        "net_s": parts.net_s,
        "server_s": {str(count): one for count, one in parts.server_s.items()},
        "share": parts.share(),
        "rows": found,
    }


def _client(
    run: TuningRun, model: LanguageModel, split: SplitSettings, texts: Sequence[Encoded]
) -> tuple[tuple[float, float, float], tuple[Message, Message]]:
    """Return what the parts of a client's step take, seconds of its CPU, and what it sends."""
    cut, wire, client = split.one_cut(), WIRES[split.wire], "c0"
    ends, middle = Ends.of(model, cut), Middle.of(model, [cut])
    leaves = {name: value[None].clone().requires_grad_() for name, value in model.trainable.items()}
    times: list[tuple[float, float, float]] = []
    sent: tuple[Message, Message] | None = None
    for _ in range(5):
        body = split.body(middle, {client: cut}, run.local, (client,))
        ahead, first_s = _timed(lambda: (turn := _turn(ends, run, leaves, texts, wire), turn.ahead()))
        turn, (fwd,) = ahead
        answer, _ = body.forward([fwd], {client: (0,)})
        (grad,), second_s = _timed(lambda turn=turn, answer=answer: turn.loss(answer))
        back, _, _ = body.backward([grad], {client: (0,)})
        _, third_s = _timed(lambda turn=turn, back=back: turn.back(back))
        times.append((first_s, second_s, third_s))
        sent = fwd, grad
    if sent is None:
        raise ConfigError("local.batch: no example to measure with.")
    one, two, three = (statistics.median(column) for column in zip(*times, strict=True))
    return (one, two, three), sent


def _turn(ends: Ends, run: TuningRun, leaves: Any, texts: Sequence[Encoded], wire: Any) -> Turn:
    return Turn(ends, run.task, leaves, [list(texts)], Said(("c0",), 0, 0, wire), ())


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start_s = time.thread_time()
    found = work()
    return found, time.thread_time() - start_s


def _server_s(bench: _Bench, count: int) -> float:
    """Return what the server takes for a step of so many clients whose messages are all there, with its journal."""
    clients = bench.clients(count)
    took: list[float] = []
    server = bench.server([one.name for one in clients], took=took)
    for step in range(bench.settings.steps + 1):
        for part in (0, 1):
            for promised in [server.submit(one.said(step, 0, part)) for one in clients]:
                promised.result()
    server.close()
    steps = [sum(took[at : at + 2]) for at in range(2, len(took), 2)]  # the first one warms up
    return statistics.median(steps)


def _measured(bench: _Bench, parts: Parts, count: int) -> dict[str, Any]:
    """Return what each course takes for a step of so many clients."""
    named = [one.name for one in bench.clients(count)]
    courses: dict[str, Any] = {}
    for course in COURSES:
        costs, servers = parts, min(bench.settings.servers, count)
        if course == "hierarchical":
            wall_s, average_s = _hierarchical(bench, count, servers)
            costs = replace(parts, average_s=average_s)
        else:
            wall_s = _course_s(bench, course, named)
        predicted_s = costs.predicted_s(course, count, servers=servers)
        courses[course] = {"predicted_s": predicted_s, "measured_s": wall_s, "ratio": wall_s / predicted_s}
    return {"clients": count, "eta": parts.eta(count), "courses": courses}


def _course_s(bench: _Bench, course: Course, names: Sequence[str]) -> float:
    """Return the wall seconds of a step of a course in this process, the first one not counted."""
    clients, steps = bench.clients(len(names)), bench.settings.steps
    if course == "serial":
        servers = [bench.server([name]) for name in names]
        take = lambda some: serial(clients, servers, some)  # noqa: E731 - one of four of a kind
    elif course == "two in flight":
        servers = [bench.server(names, n_micro=_MICROS, in_flight=2)]
        take = lambda some: two_in_flight(clients, servers[0], some)  # noqa: E731
    else:
        servers = [bench.server(names)]
        take = lambda some: (loops if course == "loops" else overlapped)(clients, servers[0], some)  # noqa: E731
    take(range(1))
    start_s = time.monotonic()
    take(range(1, 1 + steps))
    wall_s = time.monotonic() - start_s
    for server in servers:
        server.close()
    return wall_s / steps / (_MICROS if course == "two in flight" else 1)


def _hierarchical(bench: _Bench, count: int, servers: int) -> tuple[float, float]:
    """Return the wall seconds of a step at so many sub-servers, and those of an average over them."""
    settings = bench.settings
    share = Share(
        model=bench.model,
        split=bench.split,
        local=bench.run.local,
        seconds=bench.seconds,
        messages=bench.messages,
        latency_s=settings.rtt_ms / 2000,
        client_bytes_s=settings.mbit * _MBIT,
        server_bytes_s=settings.server_mbit * _MBIT,
        steps=settings.steps,
    )
    return averaged_steps(share, count, servers)


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
