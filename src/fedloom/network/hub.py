"""The server's half of the rounds: open jobs, the nodes that are there, and reports as they arrive, in any order.

It knows no network: `channel.py` calls it for each message of a node whose certificate was checked, and `Remote`, an
engine, hands it a round's jobs and takes the reports in their order. Reports wait on disk, so that the server holds
one row and the running sum, however many nodes there are.

A node that joins gets the open jobs of its clients, so nothing is lost with a connection, a node or this process: the
same job has the same id, and a node answers it from its journal.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from fedloom.base.errors import DataError, FedloomError, TrainingError
from fedloom.base.files import file_name, write_atomic, write_bytes
from fedloom.base.mean import Mean
from fedloom.base.shown import shown
from fedloom.contracts.federated import Report
from fedloom.network.desk import Send, kept_in
from fedloom.network.frames import Frame, text_in
from fedloom.network.jobs import JobFrame, as_packet, report_from
from fedloom.network.open_round import REPEATS, Deadline, OpenRound, Verdict, check_header, check_row
from fedloom.network.pieces import Piece, read_pieces
from fedloom.network.scoring import scores_from
from fedloom.network.split_desk import SplitDesk
from fedloom.runs.measure import OwnScores

__all__ = ["Hub"]

_log = logging.getLogger(__name__)


class Hub(SplitDesk):
    """Rounds, nodes and reports of one run; every method may be called from any thread."""

    # -------------------------------------------------------------------------------------------- what nodes do

    def joined(self, node: str, told: Mapping[str, Any], send: Send, certificate: str = "") -> None:
        """Take in a node that has said hello, in place of an older connection of it, and give it its open jobs."""
        if not isinstance(told.get("machine", {}), dict):
            raise DataError("hello: machine is no table.")
        with self._lock:
            here = self._nodes[node]
            if here.send is not None:
                here.send(Frame({"kind": "replaced"}))
            here.send, here.last_s, here.told = send, time.monotonic(), dict(told)
            here.certificate, here.gone_s = certificate, 0.0
            here.came_anew = here.process != told.get("process", "")
            here.process = str(told.get("process", ""))
            self.meters.add("joins")
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

    def body(self, node: str, digest: str, start: int = 0) -> Iterator[bytes]:
        """Return the body of the open round from a byte on, piece by piece; DataError for any other."""
        with self._lock:
            self._nodes[node].last_s = time.monotonic()
            return self.open_body(digest, start)

    def open_body(self, digest: str, start: int = 0) -> Iterator[bytes]:
        """Return the body of the open round from a byte on; DataError for any other."""
        with self._lock:
            if self._now is None or self._now.body.digest != digest:
                raise DataError("body: not of an open round.")
            if start > self._now.body.size:
                raise DataError(f"body: found start {start}, allowed are up to {self._now.body.size}.")
            return read_pieces(self._body.open("rb"), start)

    def fail(self, reason: str) -> None:
        """End the run, as no node can be reached any more; whoever waits is told why: RunError."""
        with self._lock:
            self.broken = reason
            self._lock.notify_all()

    def offered(self, node: str, header: Mapping[str, Any]) -> Verdict:
        """Return whether the report that a header announces is wanted, and from which byte on; refusals are final."""
        with self._lock:
            self._nodes[node].last_s = time.monotonic()
            job = self._job_of(node, header)
            if isinstance(job, Verdict):
                return job
            now = self._current()
            if now.phase:
                return self._told(now, job, header)
            try:
                check_header(now, job, header, self.enrolment.of_client(job.client)[1].max_weight)
            except FedloomError as error:
                return self._refuse(now, job.client, str(error))
            now.headers[job.client] = dict(header)
            if now.hidden:
                return self._whole(now, job, header, b"")
            return Verdict("wanted", self._inbox.have(self._name(job)))

    def _told(self, now: OpenRound, job: JobFrame, header: Mapping[str, Any]) -> Verdict:
        """Take in a client's scores, or why they are withheld: then nobody waits for them."""
        try:
            found = scores_from(header, now.names)
        except FedloomError as error:
            return self._refuse(now, job.client, str(error))
        if isinstance(found, str):
            return self._refuse(now, job.client, shown(found))
        now.scores[job.client] = found
        now.came.add(job.client)
        self._lock.notify_all()
        return Verdict("taken")

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
            except DataError:
                return Verdict("wanted", self._inbox.have(self._name(job)))
        if have < piece.size:
            return Verdict("wanted", have)
        # Hashing and decoding take a while, and not the desk's lock: bytes that are whole change no more.
        with self._checking:
            try:
                packet = self._inbox.whole(self._name(job), piece)
            except DataError:
                return Verdict("wanted", 0)
            return self._whole(now, job, header, packet or b"")

    def _whole(self, now: OpenRound, job: JobFrame, header: Mapping[str, Any], packet: bytes | bytearray) -> Verdict:
        try:
            check_row(now, report_from(header, packet), self.settings.max_norm)
        except FedloomError as error:
            with self._lock:
                return self._refuse(now, job.client, str(error))
        with self._lock:
            if now.closed:
                return Verdict("closed")
            self.meters.add("reports", said="taken")
            now.came.add(job.client)
            now.declined.pop(job.client, None)
            if now.lockstep:
                now.lockstep.leave(job.client)
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
        """Open a round and send its jobs to the nodes that are there; Drained where the server is to end."""
        self.refuse_drained()
        with self._lock:
            if self._now is not None and self._now.round != round.round:
                self._inbox.clear()
            self._now = round
            self._ask()

    def reports(self) -> Iterator[Report]:
        """Yield the reports of the open round in the order of its jobs, each once it is there; refused ones say so."""
        now, deadline = self._current(), Deadline(self.settings.deadline_s)
        streaming = len(now.jobs) <= now.need and not self.settings.deadline_s and not now.hidden
        if not streaming:
            self._wait(now, deadline, lambda: len(now.came) >= now.need or self._settled(now))
            with self._lock:
                now.closed = True
        total = self.total_of(now) if now.hidden and now.came else None
        for client, job in now.jobs.items():
            if streaming:
                self._wait(now, deadline, lambda client=client: client in now.came or client in now.refused)
            with self._checking:  # until the round has taken it in, no other row is read
                report = self._report(now, client, job)
                if report is not None:
                    self.meters.add("examples", report.samples_seen)
                    self._keep(now, report)
                    yield report
                del report
        if total is not None:
            self._keep_packet(now.round, "sum", total, {"sum_of": len(now.came)})
            yield Report("", as_packet(total), now.layout, 1.0, 1, 0, Mean(), {}, 0, sum_of=len(now.came))
        with self._lock:
            now.closed = True
        self.meters.add("rounds")
        self._inbox.clear()

    def scores(self) -> dict[str, OwnScores]:
        """Return the scores of the open evaluation by client, once all have told or withheld them, or at the deadline.

        Those of clients that are missing then are missing: an evaluation changes no model, and stops no run.
        """
        now, deadline = self._current(), Deadline(self.settings.deadline_s)
        with self._lock:
            while not self._settled(now) and not deadline.passed:
                self._look()
                self._lock.wait(timeout=min(1.0, deadline.left_s))
            now.closed = True
            if len(now.came) < len(now.jobs):
                _log.warning("%s: %s", now.phase, self._waiting(now))
            return {client: now.scores[client] for client in now.jobs if client in now.scores}

    def _keep(self, now: OpenRound, report: Report) -> None:
        """Keep what was received of a client, where that is asked for."""
        if not self.settings.keep_packets:
            return
        header = {"refused": report.refused} if report.refused else dict(now.headers[report.client])
        self._keep_packet(now.round, file_name(report.client), report.packet.numpy().tobytes(), header)

    def _keep_packet(self, round: int, name: str, packet: bytes, header: Mapping[str, Any]) -> None:
        if self.settings.keep_packets:
            kept = kept_in(self.packets, round, name)
            write_bytes(kept, packet)
            write_atomic(kept.with_suffix(".json"), json.dumps(header))

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
                    self.meters.add("asked_again")
                    self._ask()
                self._look()
                self._lock.wait(timeout=min(1.0, deadline.left_s))

    def _ask(self) -> None:
        """Send the open jobs to the nodes that are there."""
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

    # --------------------------------------------------------------------------------------------------- checks

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
        if job.client in now.came:
            self.meters.add("repeats", kind="report")
            return Verdict("taken")
        return job

    def _refuse(self, now: OpenRound, client: str, reason: str) -> Verdict:
        _log.warning("client '%s', round %d: report refused: %s", client, now.round, reason)
        self.meters.add("reports", said="refused")
        now.refused[client] = reason
        if now.lockstep:
            now.lockstep.leave(client)
        self._inbox.drop(self._name(now.jobs[client]))
        self._lock.notify_all()
        return Verdict("refused", reason=reason)

    def _warn_of_differences(self, node: str) -> None:
        """Warn once where machines differ in what decides about bits; refuse them where the run file is strict."""
        mine = self._nodes[node].told.get("machine", {})
        for name, other in self._nodes.items():
            theirs = other.told.get("machine", {})
            if name != node and theirs and theirs != mine:
                odd = ", ".join(sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)))
                _log.warning("nodes '%s' and '%s' differ in %s: their last digits may differ", node, name, odd)
                return
