"""Split models at the server: a node's message goes to the lockstep or to a session, whose answer the node gets."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from fedloom.base.errors import DataError
from fedloom.network.frames import text_in, whole_in
from fedloom.network.jobs import JobFrame, as_packet
from fedloom.network.open_round import OpenRound
from fedloom.network.pieces import sha256
from fedloom.network.sum_desk import SumDesk
from fedloom.split.journal import message_from
from fedloom.split.lockstep import Lockstep, NotYet
from fedloom.split.messages import Message
from fedloom.split.sessions import Sessions

__all__ = ["SplitDesk"]


class SplitDesk(SumDesk):
    """What a hub does where clients and server compute each step, or answer, together."""

    sessions: Sessions | None = None
    """Where a run's result is served: the answers that its clients have written."""

    def step_bytes(self, node: str, header: Mapping[str, Any]) -> int:
        """Return how many bytes a node may send for a step: those that its header promises; DataError for too many."""
        with self._lock:
            most = (self.sessions or self._stepping(node, header)[1]).most_bytes
            size = whole_in(header, "size")
            if size > most:
                raise DataError(f"split: a message of {size} bytes, allowed are {most}.")
            return size

    def stepped(self, node: str, header: Mapping[str, Any], data: bytes | bytearray) -> "Future[Message]":
        """Take in a whole message of a client, and promise its answer; a FedloomError refuses it."""
        if self.sessions is not None:
            return self._read(self.sessions, node, header, data)
        with self._lock:
            job, lockstep = self._stepping(node, header)
        if sha256(data) != text_in(header, "digest", longest=64):
            raise DataError("split: the bytes that arrived are not those that were promised.")
        message = message_from(header, as_packet(data))
        if message.client != job.client or message.kind not in ("FWD", "GRAD"):
            raise DataError(f"split: found {message.kind} of '{message.client[:80]}' in a job of '{job.client}'.")
        return lockstep.submit(message)

    def _read(
        self, sessions: Sessions, node: str, header: Mapping[str, Any], data: bytes | bytearray
    ) -> "Future[Message]":
        """Return the answer to a message of a session, which a node may have for its own clients alone."""
        if sha256(data) != text_in(header, "digest", longest=64):
            raise DataError("split: the bytes that arrived are not those that were promised.")
        message, done = message_from(header, as_packet(data)), Future[Message]()
        if message.client not in self.enrolment.nodes[node].clients or not message.session:
            raise DataError(f"split: found {message.kind} of '{message.client[:80]}', no session of this node's.")
        done.set_result(sessions.answer(message))
        return done

    def _stepping(self, node: str, header: Mapping[str, Any]) -> tuple[JobFrame, Lockstep]:
        """Return whose step it is; DataError for a job that is not open, or not the node's."""
        self.heard(node)
        asked, now = text_in(header, "job", longest=64), self._now
        job = next((one for one in now.jobs.values() if one.id == asked), None) if now else None
        if now is None:
            raise NotYet("split: no round is open yet.")
        if job is None or now.lockstep is None or now.closed:
            raise DataError("split: a step of a round that is over.")
        if job.client not in self.enrolment.nodes[node].clients:
            raise DataError(f"split: client '{job.client}' is not of this node.")
        return job, now.lockstep

    def back_in_step(self, now: OpenRound, client: str) -> None:
        """Take note that a client that was late takes part again."""
        with self._lock:
            now.refused.pop(client, None)
            self._lock.notify_all()

    def note_batch(self, messages: Sequence[Message], waited_s: float, computed_s: float) -> None:
        """Count a batch of split steps, by how many clients were in it."""
        clients = str(len(messages))
        self.meters.add("split_batches", clients=clients)
        self.meters.add("split_compute_seconds", computed_s, clients=clients)
        self.meters.add("split_wait_seconds", waited_s, clients=clients)
        for message in messages:
            self.meters.add("split_bytes", message.packet.numel(), kind=message.kind)
            self.meters.add("split_tokens", message.n_tokens if message.kind == "FWD" else 0)

    def out_of_step(self, now: OpenRound, client: str, reason: str) -> None:
        """Take note that a client is out of a round's steps, and so of the round."""
        with self._lock:
            now.refused[client] = f"out of the split round: {reason}"
            self._lock.notify_all()
