"""The server's half of the rounds: open jobs, the nodes that are there, and reports as they arrive, in any order.

It knows no network: `channel.py` calls it for each message of a node whose certificate was checked, and `Remote`, an
engine, hands it a round's jobs and takes the reports in their order. Reports wait on disk, so that the server holds
one row and the running sum, however many nodes there are.

A node that joins gets the open jobs of its clients, so nothing is lost with a connection, a node or this process: the
same job has the same id, and a node answers it from its journal.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fedloom.base.errors import DataError, FedloomError, TrainingError
from fedloom.base.files import file_name
from fedloom.base.mean import Mean
from fedloom.base.shown import shown
from fedloom.contracts.federated import Report
from fedloom.federated.aggregators.secure_sum import SecureSum
from fedloom.network.enrolment import Enrolment
from fedloom.network.frames import Frame, text_in, whole_in
from fedloom.network.jobs import JobFrame, as_packet, report_from
from fedloom.network.open_round import REPEATS, Deadline, OpenRound, Verdict, check_header, check_row
from fedloom.network.partaking import verifier
from fedloom.network.pieces import Inbox, Piece
from fedloom.network.summing import Summing, terms_of
from fedloom.runs.tuning import Deployment
from fedloom.secure_sum.party import PHASES
from fedloom.secure_sum.terms import SecureSumError

__all__ = ["Hub"]

_log = logging.getLogger(__name__)


_PHASE_S, _GONE_S = 60.0, 3.0
"""Seconds after which a client is lost in a phase of a secure sum, and after which one whose node is gone is."""

Send = Callable[[Frame], None]
"""Puts a frame on a node's stream."""


@dataclass
class _Node:
    """A node that is connected, or was."""

    name: str
    send: Send | None = None
    last_s: float = 0.0
    told: dict[str, Any] = field(default_factory=dict[str, Any])
    certificate: str = ""
    process: str = ""
    """What the node calls its process: another one has lost the secrets of a sum under way."""
    came_anew: bool = False
    """Whether it was started since the attempt at a sum began."""
    gone_s: float = 0.0
    """When it left; 0 while it is here, and before it ever was."""


class Hub:
    """Rounds, nodes and reports of one run; every method may be called from any thread."""

    def __init__(self, run: str, enrolment: Enrolment, folder: Path, settings: Deployment) -> None:
        self.run = run
        self.enrolment, self.settings = enrolment, settings
        self._inbox = Inbox(folder)
        self._lock = threading.Condition()
        self._nodes = {name: _Node(name) for name in enrolment.nodes}
        self._now: OpenRound | None = None
        self._looked_s = 0.0
        self.over = False
        self.authority = ""
        """The certificate of the federation's authority, by which clients know each other in secure sums."""
        self.watch: Callable[[dict[str, Any]], None] = lambda _: None
        """Told now and then whom the run waits for."""

    # -------------------------------------------------------------------------------------------- what nodes do

    def joined(self, node: str, told: Mapping[str, Any], send: Send, certificate: str = "") -> None:
        """Take in a node that has said hello, in place of an older connection of it, and give it its open jobs."""
        with self._lock:
            here = self._nodes[node]
            if here.send is not None:
                here.send(Frame({"kind": "replaced"}))
            here.send, here.last_s, here.told = send, time.monotonic(), dict(told)
            here.certificate, here.gone_s = certificate, 0.0
            here.came_anew = here.process != told.get("process", "")
            here.process = str(told.get("process", ""))
            self._warn_of_differences(node)
            # What a secure sum is about a node that was started anew has to know, although it has reported it.
            for job in self._open_jobs(node, came_too=self._now is not None and self._now.hidden):
                send(Frame(job.header()))
            self._lock.notify_all()
            if self.over:
                send(Frame({"kind": "end"}))

    def left(self, node: str, send: Send) -> None:
        """Take note that a connection has ended, unless another has replaced it."""
        with self._lock:
            if self._nodes[node].send is send:
                self._nodes[node].send = None
                self._nodes[node].gone_s = time.monotonic()
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
                check_header(now, job, header, self.enrolment.of_client(job.client)[1].max_weight)
            except FedloomError as error:
                return self._refuse(now, job.client, str(error))
            now.headers[job.client] = dict(header)
            if now.hidden:
                return self._whole(now, job, header, b"")
            return Verdict("wanted", self._inbox.have(self._name(job)))

    def offered_masked(self, node: str, header: Mapping[str, Any]) -> Verdict:
        """Return from which byte on a masked row is wanted."""
        with self._lock:
            job, summing = self._partaker(node, header)
            if header.get("size") != 4 * summing.terms.size:
                raise DataError(f"found a masked row of other than {4 * summing.terms.size} bytes.")
            now = self._current()
            now.masked[job.client] = {"digest": text_in(header, "digest", longest=64), "size": header["size"]}
            return Verdict("wanted", self._inbox.have(f"masked-{self._name(job)}"))

    def arrived_masked(self, node: str, header: Mapping[str, Any], data: bytes) -> Verdict:
        """Take in bytes of a masked row; once it is whole it is added to the sum and gone."""
        with self._lock:
            job, summing = self._partaker(node, header)
            told, name = self._current().masked.get(job.client), f"masked-{self._name(job)}"
            if told is None:
                raise DataError("bytes of a masked row that was not offered.")
            piece = Piece(told["digest"], told["size"])
            try:
                have = self._inbox.add(name, piece, whole_in(header, "start"), data)
                row = self._inbox.whole(name, piece)
            except DataError:
                return Verdict("wanted", self._inbox.have(name))
            if row is None:
                return Verdict("wanted", have)
            self._inbox.drop(name)
            summing.take(job.client, "mask", row)
            self._lock.notify_all()
            return Verdict("taken")

    def summed(self, node: str, header: Mapping[str, Any], body: bytes) -> Verdict:
        """Take in a message of a secure sum; one that is refused raises a FedloomError and changes nothing."""
        with self._lock:
            job, summing = self._partaker(node, header)
            summing.take(job.client, text_in(header, "phase", longest=20), body)
            self._lock.notify_all()
            return Verdict("taken")

    def _partaker(self, node: str, header: Mapping[str, Any]) -> tuple[JobFrame, Summing]:
        """Return whose message it is, and the sum that it belongs to; DataError for any other."""
        self._nodes[node].last_s = time.monotonic()
        asked, now = text_in(header, "job", longest=64), self._current()
        job = next((one for one in now.jobs.values() if one.id == asked), None)
        if job is None or job.client not in self.enrolment.nodes[node].clients:
            raise DataError("secure sum: a message of a job that is not this node's.")
        if now.summing is None or header.get("attempt") != now.attempt:
            raise DataError("secure sum: a message of an attempt that is over.")
        return job, now.summing

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

    def _whole(self, now: OpenRound, job: JobFrame, header: Mapping[str, Any], packet: bytes) -> Verdict:
        # Decoding takes a while, and no lock.
        try:
            check_row(now, report_from(header, packet), self.settings.max_norm)
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
            job, why = self._job_of(node, header), shown(text_in(header, "reason", longest=2000))
            now, named = self._now, text_in(header, "job", longest=64)
            if isinstance(job, JobFrame):
                if self._current().declined.get(job.client) != why:
                    _log.warning("client '%s', round %d: %s", job.client, job.round, why)
                self._current().declined[job.client] = why
            elif now is not None and now.summing is not None:
                own = self.enrolment.nodes[node].clients
                now.unwilling.update(c for c, one in now.jobs.items() if one.id == named and c in own)
            self._lock.notify_all()

    # ------------------------------------------------------------------------------------------ what the run does

    def open(self, round: OpenRound) -> None:
        """Open a round and send its jobs to the nodes that are there."""
        with self._lock:
            if self._now is not None and self._now.round != round.round:
                self._inbox.clear()
            self._now = round
            for name, node in self._nodes.items():
                for job in self._open_jobs(name) if node.send else ():
                    if node.send:
                        node.send(Frame(job.header()))

    def reports(self) -> Iterator[Report]:
        """Yield the reports of the open round in the order of its jobs, each once it is there; refused ones say so."""
        now, deadline = self._current(), Deadline(self.settings.deadline_s)
        streaming = len(now.jobs) <= now.need and not self.settings.deadline_s and not now.hidden
        if not streaming:
            self._wait(now, deadline, lambda: len(now.came) >= now.need or self._settled(now))
            with self._lock:
                now.closed = True
        total = self._total(now) if now.hidden and now.came else None
        for client, job in now.jobs.items():
            if streaming:
                self._wait(now, deadline, lambda client=client: client in now.came or client in now.refused)
            report = self._report(now, client, job)
            if report is not None:
                yield report
        if total is not None:
            yield Report("", as_packet(total), now.layout, 1.0, 1, 0, Mean(), {}, 0, sum_of=len(now.came))
        with self._lock:
            now.closed = True
        self._inbox.clear()

    # ------------------------------------------------------------------------------------------- secure sums

    def _total(self, now: OpenRound) -> bytes:
        """Return the sum of the rows of those that came; who is lost on the way came no more."""
        rule = now.plan.aggregator
        if not isinstance(rule, SecureSum):
            raise TrainingError(f"aggregator '{rule.name}' makes no sums between machines.")
        ready = [client for client in now.jobs if client in now.came]
        for _ in range(REPEATS + 1):
            try:
                total, survivors = self._attempted(now, rule, self._present(ready))
            except SecureSumError as error:
                _log.warning("round %d: %s", now.round, error)
                continue
            now.came.intersection_update(survivors)
            return total
        raise TrainingError(f"round {now.round}: no sum came about in {REPEATS + 1} attempts; resume goes on.")

    def _present(self, ready: Sequence[str]) -> list[str]:
        """Return those whose nodes are there, once all are, or after the time that a phase has."""
        end_s = time.monotonic() + (self.settings.deadline_s or _PHASE_S)
        with self._lock:
            while True:
                here = [client for client in ready if self._nodes[self.enrolment.of_client(client)[0]].send]
                if len(here) == len(ready) or time.monotonic() > end_s:
                    return here
                self._look()
                self._lock.wait(timeout=0.2)

    def _attempted(self, now: OpenRound, rule: SecureSum, ready: Sequence[str]) -> tuple[bytes, tuple[str, ...]]:
        """Lead one attempt through its phases."""
        attempt = time.time_ns() // 1_000_000  # rises, also when a server is started anew
        terms = terms_of(now.plan, rule, self.run, now.round, attempt, dict.fromkeys(ready), now.layout.size)
        nodes = {client: self.enrolment.of_client(client)[0] for client in now.jobs}
        with self._lock:
            certificates = {name: self._nodes[name].certificate for name in sorted({nodes[one] for one in ready})}
            authority = self.authority
            now.summing = summing = Summing(terms, verifier(certificates, nodes, authority))
            now.attempt, now.masked, now.unwilling = attempt, {}, set()
            for node in self._nodes.values():
                node.came_anew = False
            told = json.dumps({"clients": list(ready), "certificates": certificates}).encode()
            self._tell(now, "advertise", dict.fromkeys(ready, told))
        while True:
            self._gather(now, summing)
            with self._lock:
                if summing.phase == PHASES[-1]:
                    return summing.total(), summing.survivors
                sent = summing.closed()
                self._tell(now, summing.phase, sent)

    def _tell(self, now: OpenRound, phase: str, sent: Mapping[str, bytes]) -> None:
        for client, body in sent.items():
            node = self._nodes[self.enrolment.of_client(client)[0]]
            header = {"kind": "sum", "job": now.jobs[client].id, "phase": phase, "round": now.round}
            if node.send:
                node.send(Frame(header | {"attempt": now.attempt}, body))

    def _gather(self, now: OpenRound, summing: Summing) -> None:
        """Wait for a phase's messages, as long as those who owe one are there."""
        end_s = time.monotonic() + (self.settings.deadline_s or _PHASE_S)
        with self._lock:
            while time.monotonic() < end_s and any(self._may_come(now, client) for client in summing.waiting):
                self._look()
                self._lock.wait(timeout=0.2)
            if summing.waiting:
                _log.warning("round %d, %s: lost %s", now.round, summing.phase, ", ".join(sorted(summing.waiting)))

    def _may_come(self, now: OpenRound, client: str) -> bool:
        """Return whether a client's node still has what it needs for the sum, and has not been gone for long."""
        node = self._nodes[self.enrolment.of_client(client)[0]]
        if node.came_anew or client in now.unwilling:
            return False
        return node.send is not None or time.monotonic() - node.gone_s < _GONE_S

    def _settled(self, now: OpenRound) -> bool:
        return len(now.came) + len(now.refused) >= len(now.jobs)

    def _report(self, now: OpenRound, client: str, job: JobFrame) -> Report | None:
        with self._lock:
            if client in now.refused:
                empty = torch.zeros(0, dtype=torch.uint8)
                return Report(client, empty, now.layout, 0.0, 0, 0, Mean(), {}, 0, refused=now.refused[client])
            if client not in now.came:
                return None
            header = now.headers[client]
        if now.hidden:
            return report_from(header, b"")
        name = self._name(job)
        packet = self._inbox.whole(name, Piece(header["digest"], header["size"]))
        self._inbox.drop(name)
        return report_from(header, packet or b"")

    def _wait(self, now: OpenRound, deadline: "Deadline", done: Callable[[], bool]) -> None:
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

    def _ask_again(self, now: OpenRound) -> None:
        for name, node in self._nodes.items():
            for job in self._open_jobs(name):
                if node.send:
                    node.send(Frame(job.header()))

    def _too_few(self, now: OpenRound) -> str:
        least = now.plan.min_clients or len(now.jobs)
        return (
            f"round {now.round}: {len(now.came)} of {len(now.jobs)} clients reported by the deadline, {REPEATS + 1} "
            f"times; at least {least} have to (min_clients). {self._waiting(now)}; resume goes on."
        )

    def end(self) -> None:
        """Tell all nodes that the run is over."""
        with self._lock:
            self.over = True
            for node in self._nodes.values():
                if node.send:
                    node.send(Frame({"kind": "end"}))

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

    def _phase(self, now: OpenRound, client: str) -> dict[str, Any]:
        if client in now.came:
            return {"phase": "reported"}
        if client in now.refused:
            return {"phase": "refused", "reason": now.refused[client]}
        if client in now.declined:
            return {"phase": "declined", "reason": now.declined[client]}
        have = self._inbox.have(self._name(now.jobs[client]))
        size = now.headers[client]["size"] if client in now.headers else None
        return {"phase": "sending" if client in now.headers else "working", "bytes": have, "of": size}

    def _waiting(self, now: OpenRound) -> str:
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

    def _current(self) -> OpenRound:
        if self._now is None:
            raise DataError("no round is open.")
        return self._now

    def _open_jobs(self, node: str, *, came_too: bool = False) -> list[JobFrame]:
        now = self._now
        if now is None or (now.closed and not came_too):
            return []
        own, done = self.enrolment.nodes[node].clients, now.refused.keys() | (set() if came_too else now.came)
        return [job for client, job in now.jobs.items() if client in own and client not in done]

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

    def _refuse(self, now: OpenRound, client: str, reason: str) -> Verdict:
        _log.warning("client '%s', round %d: report refused: %s", client, now.round, reason)
        now.refused[client] = reason
        self._inbox.drop(self._name(now.jobs[client]))
        self._lock.notify_all()
        return Verdict("refused", reason=reason)

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
