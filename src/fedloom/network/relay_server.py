"""A server's side of a relay: one call out to each node, and in the next one what is said to its answer.

A relay knows its own names for nodes; whose node answers is told by the certificate in the answer. Nodes that come,
go and come again are the hub's matter (`hub.py`): a lost answer ends a session, and a session that begins gets the open
jobs.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

from fedloom.base.errors import ConfigError, DataError, FedloomError, RunError
from fedloom.base.shown import shown
from fedloom.network.answers import Answers, refusing
from fedloom.network.desk import Send
from fedloom.network.door import Welcome
from fedloom.network.envelope import Envelope, digest_of, sealed
from fedloom.network.frames import Frame, text_in
from fedloom.network.hub import Hub
from fedloom.network.keys import Keys, check, verify_bytes
from fedloom.network.link import Unreachable
from fedloom.network.open_round import Verdict

__all__ = ["Post", "RelayServer"]

_log = logging.getLogger(__name__)
_TURN_S, _LATER_S = 0.2, 3.0
"""Seconds between two looks at the relay, and until a node that failed to answer is called again."""
_SILENT_S, _PATIENCE_S = 60.0, 120.0
"""Seconds after which a node that answers no call is gone, and after which a relay that is not reached is."""


class Post(Protocol):
    """A relay, as a server sees it; `Unreachable` where it is gone for now, RunError where it is for good."""

    def nodes(self) -> Iterable[int]:
        """Return the relay's names of the nodes that are there."""
        ...

    def send(self, node: int, data: bytes) -> str:
        """Send a call and return its name."""
        ...

    def replies(self, calls: Sequence[str]) -> Mapping[str, bytes | None]:
        """Return the answers that have come to these calls; None for one that failed."""
        ...


@dataclass
class _Caller:
    """What is known of a node that the relay has named, and the call that is out to it."""

    place: int
    name: str = ""
    """The node that its certificate names; "" before it has said hello."""
    session: str = ""
    send: Send | None = None
    number: int = 0
    call: str = ""
    digest: str = ""
    since_s: float = 0.0
    next_s: float = 0.0
    frames: list[Frame] = field(default_factory=list[Frame])
    """What goes with the next call."""
    body: str = ""
    """Digest of the body that this session was sent."""


class RelayServer:
    """Serves a hub through a relay, in a thread of its own."""

    def __init__(
        self,
        hub: Hub,
        post: Post,
        keys: Keys,
        sign: Callable[[bytes], bytes],
        welcome: Welcome,
        *,
        revoked: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._hub, self._post, self._keys, self._sign = hub, post, keys, sign
        self._welcome, self._revoked, self._answers = welcome, revoked, Answers(hub)
        self._callers: dict[int, _Caller] = {}
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._reached_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "RelayServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._work()
        finally:
            if not self._stop.is_set():  # nobody waits for a thread that is gone
                self._hub.fail(self._hub.broken or "the relay is served no more; resume goes on.")

    def _work(self) -> None:
        while not self._stop.wait(_TURN_S):
            try:
                self._turn()
                self._reached_s = time.monotonic()
            except Unreachable as error:
                if time.monotonic() - self._reached_s > _PATIENCE_S:
                    self._hub.fail(f"{error} It was tried for {_PATIENCE_S:.0f} s; resume goes on.")
                    return
            except RunError as error:
                self._hub.fail(str(error))
                return

    def _turn(self) -> None:
        """Call those that are not being called, and hear those that have answered."""
        now_s = time.monotonic()
        for place in self._post.nodes():
            caller = self._callers.setdefault(place, _Caller(place))
            if not caller.call and now_s >= caller.next_s:
                self._call(caller)
        out = {caller.call: caller for caller in self._callers.values() if caller.call}
        for call, data in (self._post.replies(list(out)) if out else {}).items():
            if call in out:
                self._answered(out[call], data)
        for caller in out.values():
            if caller.send and caller.call and now_s - caller.since_s > _SILENT_S:
                self._lost(caller)

    def _call(self, caller: _Caller) -> None:
        with self._lock:
            frames, caller.frames = caller.frames, []
        caller.number += 1
        head = {"kind": "call", "to": caller.name, "session": caller.session, "number": caller.number}
        data = sealed(head | {"run": self._hub.run, "certificate": self._keys.certificate}, frames, self._sign)
        caller.digest, caller.since_s = digest_of(data), time.monotonic()
        caller.call = self._post.send(caller.place, data)
        if any(frame.header.get("kind") == "end" for frame in frames):
            caller.next_s = float("inf")

    def _answered(self, caller: _Caller, data: bytes | None) -> None:
        """Hear an answer; one that is none of a node of this federation ends the session."""
        caller.call = ""
        over = caller.next_s == float("inf")
        try:
            if data is None:
                raise DataError("it has not answered; it is called again.")
            envelope = Envelope.read(data)
            name = self._who(envelope, caller.digest)
            frames = list(envelope.frames())
            if frames and frames[0].header.get("kind") == "hello":
                self._greet(caller, name, frames[0], envelope)
            elif caller.send and (name, envelope.text("session")) == (caller.name, caller.session):
                self._hub.heard(name)
                self._carry(caller, frames)
            else:
                self._lost(caller)
        except FedloomError as error:
            level = logging.WARNING if data else logging.DEBUG
            _log.log(level, "node %s: %s", caller.name or caller.place, shown(str(error))[:400])
            self._lost(caller)
            caller.next_s = max(caller.next_s, time.monotonic() + _LATER_S)
        if over:
            self._lost(caller)

    def _who(self, envelope: Envelope, digest: str) -> str:
        """Return the node that has signed an answer to the call of this digest: ConfigError or DataError."""
        who = check(envelope.certificate, self._keys.authority, "node")
        if who.fingerprint in self._revoked():
            raise ConfigError(f"certificate of '{who.name}': revoked; ask for a new one.")
        if not verify_bytes(envelope.certificate, envelope.said, envelope.signature):
            raise ConfigError(f"node '{who.name}': an answer that it has not signed.")
        if envelope.text("kind") != "answer" or envelope.text("re") != digest:
            raise DataError(f"node '{who.name}': an answer to another call.")
        if who.name not in self._hub.enrolment.nodes:
            raise ConfigError(f"node '{who.name}': is not enrolled.")
        return who.name

    def _greet(self, caller: _Caller, name: str, hello: Frame, envelope: Envelope) -> None:
        """Begin a session with a node that has said hello, or tell it why not."""
        self._lost(caller)
        caller.session = text_in(hello.header, "nonce", longest=64)
        caller.name, caller.body, caller.number = name, "", 0
        try:
            caller.frames = [self._welcome(name, hello.header)]
        except FedloomError as error:
            caller.frames = [Frame({"kind": "refused", "reason": str(error)[:4000]})]
            return
        caller.send = self._sender(caller, caller.session)
        self._hub.joined(name, hello.header, caller.send, envelope.certificate)

    def _sender(self, caller: _Caller, session: str) -> Send:
        """Return what puts frames into a session's next call; the body goes with the first job that has it."""

        def send(frame: Frame) -> None:
            frames = [*self._with(caller, frame), frame]
            with self._lock:
                if caller.session == session:
                    caller.frames += frames

        return send

    def _with(self, caller: _Caller, frame: Frame) -> Iterator[Frame]:
        """Yield the body of a job, where the session does not have it yet."""
        digest = str(frame.header.get("digest", ""))
        if frame.header.get("kind") == "job" and digest != caller.body:
            caller.body = digest
            for data in self._hub.open_body(digest):
                yield Frame({"kind": "body", "digest": digest}, data)

    def _lost(self, caller: _Caller) -> None:
        """End a session; the next call finds whoever is there."""
        if caller.send:
            self._hub.left(caller.name, caller.send)
        with self._lock:
            caller.send, caller.session, caller.name, caller.frames = None, "", "", []

    # ------------------------------------------------------------------------------------------ what a node says

    def _carry(self, caller: _Caller, frames: Sequence[Frame]) -> None:
        """Hand each frame to the hub; frames of one request are answered together."""
        for request, group in groupby(frames, key=lambda frame: frame.header.get("request", -id(frame))):
            asked = [Frame({k: v for k, v in frame.header.items() if k != "request"}, frame.body) for frame in group]
            for said in self._said(caller.name, asked):
                if isinstance(request, int) and request >= 0:
                    with self._lock:
                        caller.frames.append(Frame({**said.header, "request": request}, said.body))

    def _said(self, name: str, asked: Sequence[Frame]) -> Iterator[Frame]:
        """Yield what is said to the frames of a request: bytes, or the verdict on the last that was looked at."""
        if asked[0].header.get("kind") == "fetch":
            try:
                yield from list(self._answers.fetched(name, asked[0]))
            except FedloomError as error:
                yield Frame({"kind": "refused", "reason": str(error)[:4000]})
            return
        verdict = Verdict("refused", reason="nothing was said")
        for frame in asked:
            verdict = refusing(lambda frame=frame: self._verdict(name, frame))
            if verdict.kind != "wanted":
                break
        yield Frame(verdict.header())

    def _verdict(self, name: str, frame: Frame) -> Verdict:
        match frame.header.get("kind"):
            case "sum":
                return self._answers.summed(name, frame)
            case "declined":
                return self._answers.said(name, frame)
            case "piece" | "masked" if "start" in frame.header:
                return self._answers.arrived(name, frame)
            case "report" | "masked" | "scores":
                return self._answers.offered(name, frame)
            case kind:
                raise DataError(f"found a message of kind '{str(kind)[:40]}', which is none of a node.")
