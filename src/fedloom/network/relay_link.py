"""A node's way to its server through a relay that brings calls and takes one answer to each (`flower.py`).

A node cannot begin: the server keeps one call out to it, the node answers with whatever it has to say, and the next
call brings what is said to that. A call of a server that the policy does not name, and one that is no envelope of ours,
is refused, and the ledger says so. Whoever calls with the right key in another session has forgotten this one: the node
hangs up, and joins again.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from fedloom.base.errors import ConfigError, DataError, FedloomError
from fedloom.base.shown import shown
from fedloom.network.envelope import Envelope, digest_of, sealed
from fedloom.network.frames import Frame, text_in, whole_in
from fedloom.network.keys import sign_bytes
from fedloom.network.link import NodeLink, Unreachable, verdict_from
from fedloom.network.node_file import NodeFolder
from fedloom.network.open_round import Verdict
from fedloom.network.pieces import pieces
from fedloom.split.messages import Message

__all__ = ["Call", "Calls", "RelayLink", "relayed"]

_log = logging.getLogger(__name__)
_TURN_S, _HOLD_S = 1.0, 1.0
"""Seconds for which a call is waited for at a time, and for which one is kept until there is something to say."""
_PATIENCE_S, _QUIET_S = 600.0, 60.0
"""Seconds after which what was asked counts as lost, and after which a node that no call has reached says so."""
_LAST = ("end", "replaced", "refused")


class Call(Protocol):
    """A call that the relay has brought: bytes, to be answered once."""

    origin: str
    """Where it came from, for the ledger."""
    data: bytes | None
    """None where it holds no bytes for us."""

    def answer(self, data: bytes) -> None:
        """Send the answer; `Unreachable` where the relay is gone."""
        ...

    def refuse(self, reason: str) -> None:
        """Send back why nothing is done."""
        ...


class Calls(Protocol):
    """A relay, as a node sees it."""

    where: str

    def take(self, timeout_s: float) -> Call | None:
        """Return the next call, None where there is none in time; `Unreachable` where the relay is gone."""
        ...


def relayed(calls: Calls, folder: NodeFolder) -> Callable[[], NodeLink]:
    """Return what makes a node's link through a relay, each time it joins."""
    refused: set[tuple[str, str]] = set()
    return lambda: RelayLink(calls, folder, refused)


class RelayLink:
    """A node's connection through a relay; what does not get through raises `Unreachable`."""

    def __init__(self, calls: Calls, folder: NodeFolder, refused: set[tuple[str, str]]) -> None:
        keys = folder.keys()
        if keys is None:
            raise ConfigError(
                f"{folder.path / 'node.pem'}: missing; through a relay node and server know each other by certificates "
                "alone: docs/hospital.md, steps 3 and 4."
            )
        self.where, self._calls, self._folder, self._refused = calls.where, calls, folder, refused
        self._certificate = keys.certificate
        self._lock = threading.Condition()
        self._out: list[Frame] = []
        self._answers: dict[int, list[Frame]] = {}
        self._asked, self._number, self._session = 0, -1, ""
        self._since_s = time.monotonic()
        self._open, self._offered = True, Frame()
        self._body: tuple[str, bytearray] = "", bytearray()

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            self._open = False
            self._lock.notify_all()

    # ---------------------------------------------------------------------------------------------- what is called

    def join(self, hello: Mapping[str, Any]) -> Iterator[Frame]:
        """Yield the frames that the server sends, for as long as it keeps to the session."""
        self._session = text_in(hello, "nonce", longest=64)
        try:
            while self._open:
                call = self._next_call()
                envelope = self._accepted(call) if call else None
                if call is None or envelope is None:
                    continue
                if envelope.text("session") == self._session:
                    yield from self._heard(call, envelope)
                elif self._number < 0:  # it does not know this node yet, or knows it from another day
                    self._reply(call, [Frame(hello)])
                else:
                    self._reply(call, [])
                    return
        finally:
            self.close()

    def _next_call(self) -> Call | None:
        call = self._calls.take(_TURN_S)
        if call is None and self._number < 0 and time.monotonic() - self._since_s > _QUIET_S:
            raise Unreachable(f"{self.where}: no call has come for {_QUIET_S:.0f} s; no server runs, or none of yours.")
        return call

    def _accepted(self, call: Call) -> Envelope | None:
        """Return what a call says, where it is a server's that the policy names; any other is refused: None."""
        try:
            if call.data is None:
                raise DataError("it holds no frames of fedloom; what else a bundle wants is not carried out here.")
            envelope = Envelope.read(call.data)
            self._folder.check_server(envelope.certificate, envelope.signature.hex(), envelope.said)
            if envelope.text("kind") != "call" or envelope.text("to") not in ("", self._folder.file.name):
                raise DataError("envelope: is not for this node.")
            return envelope
        except FedloomError as error:
            reason = shown(str(error))[:2000]
        if (call.origin, reason) not in self._refused:
            self._refused.add((call.origin, reason))
            self._folder.ledger.append("refused", relayed=call.origin, reason=reason)
            _log.warning("%s: refused: %s", call.origin, reason)
        call.refuse(reason)
        return None

    def _heard(self, call: Call, envelope: Envelope) -> Iterator[Frame]:
        """Yield what the server sends of itself, hand over what it answers, and say what there is to say."""
        number = whole_in(envelope.header, "number")
        if number <= self._number:  # sent twice
            self._reply(call, [])
            return
        self._number = number
        frames = self._sorted(envelope.frames())
        over = any(frame.header.get("kind") in _LAST for frame in frames)
        if over:
            self._reply(call, self._to_say(hold_s=0))
        yield from frames
        if not over:
            self._reply(call, self._to_say(hold_s=_HOLD_S))

    def _sorted(self, frames: Iterator[Frame]) -> list[Frame]:
        """Return the frames that a node reads; answers and bodies go to those who wait for them."""
        read: list[Frame] = []
        with self._lock:
            for frame in frames:
                if "request" in frame.header:
                    self._answers.setdefault(whole_in(frame.header, "request"), []).append(frame)
                elif frame.header.get("kind") == "body":
                    self._keep_body(text_in(frame.header, "digest", longest=64), frame.body)
                else:
                    read.append(frame)
            self._lock.notify_all()
        return read

    def _keep_body(self, digest: str, data: bytes) -> None:
        if self._body[0] != digest:
            self._body = digest, bytearray()
        self._body[1].extend(data)

    def _to_say(self, hold_s: float) -> list[Frame]:
        end_s = time.monotonic() + hold_s
        with self._lock:
            while self._open and not self._out and time.monotonic() < end_s:
                self._lock.wait(timeout=max(0.01, end_s - time.monotonic()))
            said, self._out = self._out, []
        return said

    def _reply(self, call: Call, frames: Sequence[Frame]) -> None:
        head = {"kind": "answer", "session": self._session, "re": digest_of(call.data or b"")}
        call.answer(sealed(head | {"certificate": self._certificate}, frames, partial(sign_bytes, self._folder.key)))

    # ----------------------------------------------------------------------------------------------- what is asked

    def _ask(self, frames: Sequence[Frame]) -> list[Frame]:
        """Send frames and return what the server says to them; `Unreachable` once the session is over."""
        end_s = time.monotonic() + _PATIENCE_S
        with self._lock:
            self._asked += 1
            mine = self._asked
            self._out += [Frame({**frame.header, "request": mine}, frame.body) for frame in frames]
            self._lock.notify_all()
            while mine not in self._answers and self._open and time.monotonic() < end_s:
                self._lock.wait(timeout=1.0)
            if mine not in self._answers:
                raise Unreachable(f"{self.where}: the session is over before an answer came; the node joins again.")
            return self._answers.pop(mine)

    def fetch(self, digest: str, start: int) -> Iterator[bytes]:
        """Yield the bytes of a body from a place on: it came with the job, or is asked for."""
        known, data = self._body
        self._body = "", bytearray()
        if known == digest and start < len(data):
            yield from pieces(bytes(data), start)
            return
        for frame in self._ask([Frame({"kind": "fetch", "digest": digest, "start": start})]):
            if frame.header.get("kind") != "piece":
                raise DataError(shown(str(frame.header.get("reason", "the server sent no bytes")))[:400])
            yield frame.body

    def offer(self, header: Mapping[str, Any]) -> Verdict:
        """Return what the server says to a report's header; one with a packet is offered together with it."""
        self._offered = Frame(header)
        if header.get("size"):
            return Verdict("wanted")
        return verdict_from(self._ask([self._offered])[-1].header)

    def send(self, head: Mapping[str, Any], packet: bytes, start: int) -> Verdict:
        """Send a packet from a byte on, behind its header; return what the server says to the last of it."""
        sent, at = [self._offered], start
        for piece in pieces(packet, start):
            sent.append(Frame({**head, "start": at}, piece))
            at += len(piece)
        if start >= len(packet):  # all of it has arrived before, and is to be looked at
            sent.append(Frame({**head, "start": start}))
        return verdict_from(self._ask(sent)[-1].header)

    def sum(self, header: Mapping[str, Any], body: bytes) -> Verdict:
        """Send a message of a secure sum; the server says nothing to it."""
        self._say(Frame({**header, "kind": "sum"}, body))
        return Verdict("taken")

    def exchange(self, job: str, message: Message) -> Message:
        """Refuse: a relay hands messages on every few seconds, and a split round has two for each micro-batch."""
        raise ConfigError("protocol: found 'split' over a relay, allowed is a node that dials in.")

    def say(self, job: str, reason: str) -> None:
        """Tell the server why a job is not carried out now."""
        self._say(Frame({"kind": "declined", "job": job, "reason": reason[:2000]}))

    def _say(self, frame: Frame) -> None:
        with self._lock:
            if not self._open:
                raise Unreachable(f"{self.where}: the session is over; the node joins again.")
            self._out.append(frame)
            self._lock.notify_all()
