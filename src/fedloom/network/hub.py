"""The server's half of the rounds: open jobs, the nodes that are there, and reports as they arrive, in any order.

It knows no network: `channel.py` calls it for each message of a node whose certificate was checked, and `Remote`, an
engine, hands it a round's jobs and takes the reports in their order. Reports wait on disk, so that the server holds
one row and the running sum, however many nodes there are.

A node that joins gets the open jobs of its clients, so nothing is lost with a connection, a node or this process: the
same job has the same id, and a node answers it from its journal.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from fedloom.base.errors import DataError, FedloomError, TrainingError
from fedloom.base.files import file_name
from fedloom.base.mean import Mean
from fedloom.base.rows import is_finite
from fedloom.base.shown import shown
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Carrier, Engine, Job, Plan, Report, Work
from fedloom.network.enrolment import Enrolment
from fedloom.network.frames import text_in
from fedloom.network.jobs import JobFrame, body_of, layout_from, report_from, row_shape
from fedloom.network.pieces import Inbox, Piece
from fedloom.runs.tuning import Deployment

__all__ = ["Hub", "Remote", "Verdict"]

_log = logging.getLogger(__name__)
_REPEATS = 3
"""How often a round that too few have answered by its deadline is waited for once more."""


@dataclass(frozen=True)
class Verdict:
    """What a node is told of its report: taken, wanted from a byte on, closed, or refused with a reason."""

    kind: str
    start: int = 0
    reason: str = ""

    def header(self) -> dict[str, Any]:
        """Return it as a header."""
        return {"kind": self.kind, "start": self.start, "reason": self.reason}


@dataclass
class _Node:
    """A node that is connected, or was."""

    name: str
    send: Callable[[Mapping[str, Any]], None] | None = None
    last_s: float = 0.0
    told: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class _Round:
    """A round under way."""

    round: int
    plan: Plan
    layout: Layout
    packet_bytes: int
    body: bytes
    jobs: dict[str, JobFrame]
    need: int
    """Reports with which it closes."""
    headers: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    came: set[str] = field(default_factory=set[str])
    refused: dict[str, str] = field(default_factory=dict[str, str])
    declined: dict[str, str] = field(default_factory=dict[str, str])
    """Why clients do not take part, as their nodes say: they may still come."""
    closed: bool = False


class Hub:
    """Rounds, nodes and reports of one run; every method may be called from any thread."""

    def __init__(self, run: str, enrolment: Enrolment, folder: Path, settings: Deployment) -> None:
        self.run = run
        self.enrolment, self.settings = enrolment, settings
        self._inbox = Inbox(folder)
        self._lock = threading.Condition()
        self._nodes = {name: _Node(name) for name in enrolment.nodes}
        self._now: _Round | None = None
        self._looked_s = 0.0
        self.over = False
        self.watch: Callable[[dict[str, Any]], None] = lambda _: None
        """Told now and then whom the run waits for."""

    # -------------------------------------------------------------------------------------------- what nodes do

    def joined(self, node: str, told: Mapping[str, Any], send: Callable[[Mapping[str, Any]], None]) -> None:
        """Take in a node that has said hello, in place of an older connection of it, and give it its open jobs."""
        with self._lock:
            here = self._nodes[node]
            if here.send is not None:
                here.send({"kind": "replaced"})
            here.send, here.last_s, here.told = send, time.monotonic(), dict(told)
            self._warn_of_differences(node)
            for job in self._open_jobs(node):
                send(job.header())
            if self.over:
                send({"kind": "end"})

    def left(self, node: str, send: Callable[[Mapping[str, Any]], None]) -> None:
        """Take note that a connection has ended, unless another has replaced it."""
        with self._lock:
            if self._nodes[node].send is send:
                self._nodes[node].send = None
                self._lock.notify_all()
                if not self.over:
                    _log.warning("node '%s' is gone; it is waited for", node)

    def body(self, node: str, digest: str) -> bytes:
        """Return the body of the open round; DataError for any other."""
        with self._lock:
            self._nodes[node].last_s = time.monotonic()
            if self._now is None or Piece.of(self._now.body).digest != digest:
                raise DataError("body: not of an open round.")
            return self._now.body

    def offered(self, node: str, header: Mapping[str, Any]) -> Verdict:
        """Return whether the report that a header announces is wanted, and from which byte on; refusals are final."""
        with self._lock:
            self._nodes[node].last_s = time.monotonic()
            job = self._job_of(node, header)
            if isinstance(job, Verdict):
                return job
            now = self._current()
            try:
                self._check_header(now, job, header)
            except FedloomError as error:
                return self._refuse(now, job.client, str(error))
            now.headers[job.client] = dict(header)
            return Verdict("wanted", self._inbox.have(self._name(job)))

    def arrived(self, node: str, job_id: str, start: int, data: bytes) -> Verdict:
        """Take in bytes of a report; the last ones decide whether it is taken."""
        with self._lock:
            self._nodes[node].last_s = time.monotonic()
            job = self._job_of(node, {"job": job_id})
            if isinstance(job, Verdict):
                return job
            now = self._current()
            header = now.headers.get(job.client)
            if header is None:
                return Verdict("refused", reason="bytes of a report that was not offered")
            piece = Piece(header["digest"], header["size"])
            try:
                have = self._inbox.add(self._name(job), piece, start, data)
                packet = self._inbox.whole(self._name(job), piece)
            except DataError:
                return Verdict("wanted", self._inbox.have(self._name(job)))
        if packet is None:
            return Verdict("wanted", have)
        return self._whole(now, job, header, packet)

    def _whole(self, now: _Round, job: JobFrame, header: Mapping[str, Any], packet: bytes) -> Verdict:
        # Decoding takes a while, and no lock.
        try:
            self._check_row(now, job, report_from(header, packet))
        except FedloomError as error:
            with self._lock:
                return self._refuse(now, job.client, str(error))
        with self._lock:
            if now.closed:
                return Verdict("closed")
            now.came.add(job.client)
            now.declined.pop(job.client, None)
            self._lock.notify_all()
            return Verdict("taken")

    def declined(self, node: str, header: Mapping[str, Any]) -> None:
        """Take note why a node does not carry out a job now; it may still."""
        with self._lock:
            self._nodes[node].last_s = time.monotonic()
            job = self._job_of(node, header)
            if isinstance(job, JobFrame):
                why = shown(text_in(header, "reason", longest=2000))
                if self._current().declined.get(job.client) != why:
                    _log.warning("client '%s', round %d: %s", job.client, job.round, why)
                self._current().declined[job.client] = why
                self._lock.notify_all()

    # ------------------------------------------------------------------------------------------ what the run does

    def open(self, round: _Round) -> None:
        """Open a round and send its jobs to the nodes that are there."""
        with self._lock:
            if self._now is not None and self._now.round != round.round:
                self._inbox.clear()
            self._now = round
            for name, node in self._nodes.items():
                for job in self._open_jobs(name) if node.send else ():
                    if node.send:
                        node.send(job.header())

    def reports(self) -> Iterator[Report]:
        """Yield the reports of the open round in the order of its jobs, each once it is there; refused ones say so."""
        now, deadline = self._current(), _Deadline(self.settings.deadline_s)
        streaming = len(now.jobs) <= now.need and not self.settings.deadline_s
        if not streaming:
            self._wait(now, deadline, lambda: len(now.came) >= now.need or self._settled(now))
            with self._lock:
                now.closed = True
        for client, job in now.jobs.items():
            if streaming:
                self._wait(now, deadline, lambda client=client: client in now.came or client in now.refused)
            report = self._report(now, client, job)
            if report is not None:
                yield report
        with self._lock:
            now.closed = True
        self._inbox.clear()

    def _settled(self, now: _Round) -> bool:
        return len(now.came) + len(now.refused) >= len(now.jobs)

    def _report(self, now: _Round, client: str, job: JobFrame) -> Report | None:
        with self._lock:
            if client in now.refused:
                empty = torch.zeros(0, dtype=torch.uint8)
                return Report(client, empty, now.layout, 0.0, 0, 0, Mean(), {}, 0, refused=now.refused[client])
            if client not in now.came:
                return None
            header = now.headers[client]
        name = self._name(job)
        packet = self._inbox.whole(name, Piece(header["digest"], header["size"]))
        self._inbox.drop(name)
        return report_from(header, packet or b"")

    def _wait(self, now: _Round, deadline: "_Deadline", done: Callable[[], bool]) -> None:
        """Wait until it is done, or the deadline has passed with enough reports; too few, after some patience, end."""
        with self._lock:
            while not done():
                if deadline.passed:
                    if len(now.came) >= min(now.plan.min_clients or len(now.jobs), len(now.jobs)):
                        now.closed = True
                        return
                    if not deadline.again():
                        raise TrainingError(self._too_few(now))
                    _log.warning("round %d: %s; it is asked for again", now.round, self._waiting(now))
                    self._ask_again(now)
                self._look()
                self._lock.wait(timeout=min(1.0, deadline.left_s))

    def _ask_again(self, now: _Round) -> None:
        for name, node in self._nodes.items():
            for job in self._open_jobs(name):
                if node.send:
                    node.send(job.header())

    def _too_few(self, now: _Round) -> str:
        least = now.plan.min_clients or len(now.jobs)
        return (
            f"round {now.round}: {len(now.came)} of {len(now.jobs)} clients reported by the deadline, {_REPEATS + 1} "
            f"times; at least {least} have to (min_clients). {self._waiting(now)}; resume goes on."
        )

    def end(self) -> None:
        """Tell all nodes that the run is over."""
        with self._lock:
            self.over = True
            for node in self._nodes.values():
                if node.send:
                    node.send({"kind": "end"})

    def drained(self, timeout_s: float) -> None:
        """Wait until the nodes have hung up, so that each hears that the run is over."""
        end_s = time.monotonic() + timeout_s
        with self._lock:
            while any(node.send for node in self._nodes.values()) and time.monotonic() < end_s:
                self._lock.wait(timeout=0.1)
        self.watch(self.status())

    def _look(self) -> None:
        """Tell whom the run waits for, once a second."""
        if time.monotonic() - self._looked_s >= 1:
            self._looked_s = time.monotonic()
            self.watch(self.status())

    def status(self) -> dict[str, Any]:
        """Return whom the run waits for: which nodes are there, when each was last heard, what each client does."""
        with self._lock:
            now, clock = self._now, time.monotonic()
            nodes = {
                name: {
                    "here": node.send is not None,
                    "seen_s_ago": round(clock - node.last_s, 1) if node.last_s else None,
                }
                for name, node in self._nodes.items()
            }
            told: dict[str, Any] = {"run": self.run, "nodes": nodes, "over": self.over}
            if now is None:
                return told | {"round": None, "clients": {}}
            return told | {"round": now.round, "clients": {client: self._phase(now, client) for client in now.jobs}}

    def _phase(self, now: _Round, client: str) -> dict[str, Any]:
        if client in now.came:
            return {"phase": "reported"}
        if client in now.refused:
            return {"phase": "refused", "reason": now.refused[client]}
        if client in now.declined:
            return {"phase": "declined", "reason": now.declined[client]}
        have = self._inbox.have(self._name(now.jobs[client]))
        size = now.headers[client]["size"] if client in now.headers else None
        return {"phase": "sending" if client in now.headers else "working", "bytes": have, "of": size}

    def _waiting(self, now: _Round) -> str:
        """Return whom a round waits for, in words."""
        missing = [client for client in now.jobs if client not in now.came]
        whose = {client: self.enrolment.of_client(client)[0] for client in missing}
        said = [
            f"{client} ({now.refused.get(client) or now.declined.get(client) or self._seen(whose[client])})"
            for client in missing
        ]
        return f"missing: {', '.join(said)}"

    def _seen(self, node: str) -> str:
        here = self._nodes[node]
        if not here.last_s:
            return f"node '{node}' has never been here"
        ago = time.monotonic() - here.last_s
        return f"node '{node}' {'is at work' if here.send else 'is gone'}, last heard {ago:.0f} s ago"

    # --------------------------------------------------------------------------------------------------- checks

    def _current(self) -> _Round:
        if self._now is None:
            raise DataError("no round is open.")
        return self._now

    def _open_jobs(self, node: str) -> list[JobFrame]:
        now = self._now
        if now is None or now.closed:
            return []
        own = self.enrolment.nodes[node].clients
        return [
            job for client, job in now.jobs.items() if client in own and client not in now.came | now.refused.keys()
        ]

    def _job_of(self, node: str, header: Mapping[str, Any]) -> JobFrame | Verdict:
        """Return the open job that a node speaks of, or what it is told: of an old round, or not its own."""
        asked, now = text_in(header, "job", longest=64), self._now
        job = next((one for one in now.jobs.values() if one.id == asked), None) if now else None
        if job is None or now is None or (now.closed and job.client not in now.came):
            return Verdict("closed")
        if job.client not in self.enrolment.nodes[node].clients:
            return Verdict("refused", reason=f"client '{job.client}' is not of this node")
        if job.client in now.refused:
            return Verdict("refused", reason=now.refused[job.client])
        return Verdict("taken") if job.client in now.came else job

    def _refuse(self, now: _Round, client: str, reason: str) -> Verdict:
        _log.warning("client '%s', round %d: report refused: %s", client, now.round, reason)
        now.refused[client] = reason
        self._inbox.drop(self._name(now.jobs[client]))
        self._lock.notify_all()
        return Verdict("refused", reason=reason)

    def _check_header(self, now: _Round, job: JobFrame, header: Mapping[str, Any]) -> None:
        """Refuse a report by what its header says, before a byte of it is taken."""
        report = report_from({**header, "client": text_in(header, "client")}, b"")
        if report.client != job.client:
            raise DataError(f"found a report of client '{shown(report.client)}' for a job of '{job.client}'.")
        if layout_from(header.get("layout")) != now.layout:
            raise DataError("its row has another layout than this run's rows.")
        if header["size"] != now.packet_bytes:
            raise DataError(f"found a packet of {header['size']} bytes, allowed are {now.packet_bytes}.")
        private = now.plan.mechanism.covers().private
        most = self.enrolment.of_client(job.client)[1].max_weight
        if report.weight <= 0 or (private and report.weight != 1) or (most and report.weight > most):
            allowed = "1" if private else f"above 0{f' and at most {most:g}' if most else ''}"
            raise DataError(f"found a weight of {report.weight:g}, allowed is {allowed}.")
        if not private and report.n_examples < 1:
            raise DataError("found no examples.")

    def _check_row(self, now: _Round, job: JobFrame, report: Report) -> None:
        """Refuse a row that is not finite, or longer than rows may be."""
        if not report.layout.size:
            return
        row_P = now.plan.codec.decode(report.packet, report.layout.size)
        if not is_finite(row_P):
            raise DataError("its row holds NaN or infinity.")
        norm, most = float(row_P.norm()), self.settings.max_norm
        if most and norm > most and not now.plan.mechanism.covers().at_server:
            raise DataError(f"found a row of norm {norm:g}, allowed is {most:g} (deployment.max_norm).")

    def _name(self, job: JobFrame) -> str:
        return f"{job.round:06d}-{file_name(job.client)}"

    def _warn_of_differences(self, node: str) -> None:
        """Warn once where machines differ in what decides about bits; refuse them where the run file is strict."""
        mine = self._nodes[node].told.get("machine", {})
        for name, other in self._nodes.items():
            theirs = other.told.get("machine", {})
            if name != node and theirs and theirs != mine:
                odd = ", ".join(sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)))
                _log.warning("nodes '%s' and '%s' differ in %s: their last digits may differ", node, name, odd)
                return


class _Deadline:
    """When a round is over, and how often it is waited for once more."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._left = seconds, _REPEATS
        self._end_s = time.monotonic() + seconds if seconds else float("inf")

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._end_s

    @property
    def left_s(self) -> float:
        return max(0.01, self._end_s - time.monotonic())

    def again(self) -> bool:
        self._left -= 1
        self._end_s = time.monotonic() + self._seconds
        return self._left >= 0


class Remote(Engine):
    """Carries jobs to nodes on other machines, through a hub; what they compute is what any engine computes."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def start(self, work: Work) -> Carrier:
        """Return a carrier whose reports come from nodes."""
        hub, plan = self._hub, work.plan
        shape: list[tuple[Layout, int]] = []

        def carry(jobs: Iterable[Job]) -> Iterator[Report]:
            asked = iter(jobs)
            first = next(asked, None)
            if first is None:
                return
            body = body_of(first.local)
            piece = Piece.of(body)
            frames = {job.client: JobFrame.of(hub.run, job, piece) for job in chain([first], asked)}
            if not shape:
                shape.append(row_shape(plan, first.local.anchor[""]))
            need = min(plan.enough or len(frames), len(frames))
            hub.open(_Round(first.round, plan, *shape[0], body, frames, need))
            yield from hub.reports()

        return carry
