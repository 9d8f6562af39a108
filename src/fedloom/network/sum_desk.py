"""Secure sums at the server: an attempt is led through its phases, and led again with new keys where it fails."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fedloom.base.errors import DataError, TrainingError
from fedloom.federated.aggregators.secure_sum import SecureSum
from fedloom.network.desk import Desk
from fedloom.network.frames import Frame, text_in, whole_in
from fedloom.network.jobs import JobFrame
from fedloom.network.open_round import REPEATS, OpenRound, Verdict
from fedloom.network.partaking import verifier
from fedloom.network.pieces import Piece
from fedloom.network.summing import Summing, terms_of
from fedloom.secure_sum.party import PHASES
from fedloom.secure_sum.terms import SecureSumError

__all__ = ["SumDesk"]

_log = logging.getLogger(__name__)
_PHASE_S, _GONE_S = 60.0, 3.0
"""Seconds after which a client is lost in a phase of a secure sum, and after which one whose node is gone is."""


class SumDesk(Desk):
    """What a hub does where rows come as their sum alone."""

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
            summing.take(job.client, "mask", bytes(row))
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

    def total_of(self, now: OpenRound) -> bytes:
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
            now.summing = summing = Summing(terms, verifier(certificates, nodes, self.authority))
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
            header = {"kind": "sum", "job": now.jobs[client].id, "phase": phase, "attempt": now.attempt}
            if node.send:
                node.send(Frame(header, body))

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
