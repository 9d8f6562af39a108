"""The wire, as a node has it: gRPC with certificates on both sides, nodes dial out, everything is a frame.

What may be asked of a server, and how it is answered, is in `door.py`. With `sealed`, all that is said passes sealed
(`sealed.py`, `handshake.py`): whatever ends TLS on the way sees sizes, times and the server's certificate alone.
"""

import ipaddress
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from fedloom.base.errors import ConfigError, DataError, RunError
from fedloom.base.extras import library, require
from fedloom.base.shown import shown
from fedloom.network.frames import Frame
from fedloom.network.handshake import Connection, Greeting
from fedloom.network.keys import Keys, host_of
from fedloom.network.link import Unreachable, verdict_from
from fedloom.network.open_round import Verdict
from fedloom.network.pieces import pieces
from fedloom.network.sealed import NotSealed
from fedloom.network.steps import answer_in, in_frames
from fedloom.split.messages import Message

__all__ = ["OPTIONS", "SERVICE", "Link", "grpc_library", "is_loopback"]

SERVICE = "fedloom.Federation"
_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305"  # and all of TLS 1.3
)
_LARGEST = (1 << 20) + (128 << 10)
OPTIONS = (
    ("grpc.max_receive_message_length", _LARGEST),
    ("grpc.max_send_message_length", _LARGEST),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    # A transfer in full spate is not starved by small windows.
    ("grpc.http2.bdp_probe", 1),
    ("grpc.so_reuseport", 0),
    ("grpc.enable_http_proxy", 0),
)


def grpc_library() -> Any:
    """Return gRPC, which is told what it may do before it is loaded."""
    os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", _SUITES)  # read when the library is loaded
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    require("network", "grpc", "cryptography")
    logging.getLogger("grpc").setLevel(logging.CRITICAL)  # a node that hangs up is no error
    return library("grpc", "network")


def is_loopback(address: str) -> bool:
    """Return whether an address, host and port, can be reached from this machine alone."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Link:
    """A node's connection to its server; what does not get through raises `Unreachable`.

    With `sealed` only the two ends read it, and `relay` names, in its certificate, what may end TLS on the way.
    """

    def __init__(
        self, address: str, server: str, keys: Keys | None, node: str, *, sealed: bool = False, relay: str = ""
    ) -> None:
        if keys is None and not is_loopback(address):
            raise ConfigError(f"server: found {address} without certificates, allowed is a loopback address.")
        if keys is None and (sealed or relay):
            raise ConfigError("sealed: found a node without a certificate, by which both ends know each other.")
        self.where, grpc = address, grpc_library()
        if keys is None:
            self._channel = grpc.insecure_channel(address, options=OPTIONS)
        else:
            asked = grpc.ssl_channel_credentials(keys.authority.encode(), keys.key, keys.certificate.encode())
            named = (*OPTIONS, ("grpc.ssl_target_name_override", host_of(relay or server)))
            self._channel = grpc.secure_channel(address, asked, options=named)
        self._metadata = (("fedloom-node", node),) if keys is None else ()
        self._errors, self._closed = grpc.RpcError, False
        self._sealed = _Sealed(keys, server, self._passed) if keys and (sealed or relay) else None

    def close(self) -> None:
        """Hang up; whoever asks after that is told so: RunError."""
        self._closed = True
        self._channel.close()

    def _passed(self, name: str, frames: Iterable[bytes]) -> Iterator[bytes]:
        return self._channel.stream_stream(f"/{SERVICE}/{name}")(iter(frames), metadata=self._metadata)

    def _asked(self, name: str, frames: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what the server says to frames; Unreachable where either does not get through."""
        if self._closed:
            raise RunError(f"{self.where}: this node has hung up.")
        try:
            yield from (self._sealed or self._passed)(name, frames)
        except self._errors as error:
            raise Unreachable(self._said(error)) from error
        except NotSealed as error:
            raise Unreachable(f"{self.where}: {error}; it is tried again.") from error

    def join(self, hello: Mapping[str, Any]) -> Iterator[Frame]:
        """Yield the frames that the server sends, for as long as the connection stands."""
        yield from map(Frame.decoded, self._asked("Join", [Frame(hello).encoded()]))

    def fetch(self, digest: str, start: int) -> Iterator[bytes]:
        """Yield the bytes of a body from a place on."""
        asked = Frame({"kind": "fetch", "digest": digest, "start": start}).encoded()
        for frame in map(Frame.decoded, self._asked("Fetch", [asked])):
            if frame.header.get("kind") != "piece":
                raise DataError(str(frame.header.get("reason", "the server sent no bytes"))[:400])
            yield frame.body

    def offer(self, header: Mapping[str, Any]) -> Verdict:
        """Return what the server says to a report's header."""
        return self._verdict("Offer", [Frame(header).encoded()])

    def send(self, head: Mapping[str, Any], packet: bytes, start: int) -> Verdict:
        """Send a packet from a byte on under a header; return what the server says to the last of it."""

        def frames() -> Iterator[bytes]:
            at = start
            for piece in pieces(packet, start):
                yield Frame({**head, "start": at}, piece).encoded()
                at += len(piece)
            if start >= len(packet):
                yield Frame({**head, "start": start}).encoded()

        return self._verdict("Send", frames())

    def exchange(self, job: str, message: Message) -> Message:
        """Send a message of a split step, and return the server's answer to it; DataError where there is none."""
        sent = (frame.encoded() for frame in in_frames(message, job))
        return answer_in(map(Frame.decoded, self._asked("Step", sent)), message, self.where)

    def sum(self, header: Mapping[str, Any], body: bytes) -> Verdict:
        """Send a message of a secure sum."""
        return self._verdict("Sum", [Frame({**header, "kind": "sum"}, body).encoded()])

    def ping(self) -> str:
        """Return what the server says to a node that asks for nothing: that it knows it, or why not."""
        verdict = self.offer({"kind": "report", "job": ""})
        return "it knows this node" if verdict.kind == "closed" else verdict.reason

    def say(self, job: str, reason: str) -> None:
        """Tell the server why a job is not carried out now."""
        self._verdict("Say", [Frame({"kind": "declined", "job": job, "reason": reason[:2000]}).encoded()])

    def _verdict(self, name: str, frames: Iterable[bytes]) -> Verdict:
        for data in [*self._asked(name, frames)][-1:]:
            return verdict_from(Frame.decoded(data).header)
        raise Unreachable(f"{self.where}: hung up without an answer; it is tried again.")

    def _said(self, error: Any) -> str:
        """Return in one line why the server cannot be reached; who breaks TLS on the way is named."""
        told = str(error.details() or "")
        if any(word in told.lower() for word in ("certificate", "ssl", "tls", "handshake", "hostname")):
            return (
                f"{self.where}: the connection is not that of the server this node knows ({told[:200]}): its "
                "certificate is of another authority or name, yours is not accepted, or something between ends TLS."
            )
        return f"{self.where}: not reached ({error.code().name.lower()}: {told[:200]}); it is tried again."


class _Sealed:
    """A node's sealed calls: both ends agree on keys before the first one, and again after whatever has failed."""

    def __init__(self, keys: Keys, server: str, passed: Callable[[str, Iterable[bytes]], Iterator[bytes]]) -> None:
        self._keys, self._server, self._passed = keys, server, passed
        self._connection: Connection | None = None
        self._turn = threading.Lock()

    def __call__(self, name: str, frames: Iterable[bytes]) -> Iterator[bytes]:
        with self._turn:
            if self._connection is None or self._connection.is_old:
                self._connection = self._fresh()
            connection = self._connection
        whole = False
        try:
            yield from self._call(connection, chain([Frame({"kind": "call", "name": name}).encoded()], frames))
            whole = True
        finally:
            if not whole and self._connection is connection:
                self._connection = None

    def _call(self, connection: Connection, frames: Iterable[bytes]) -> Iterator[bytes]:
        call = connection.next_call()
        return call.opener.all(self._passed("Sealed", chain([call.opening], call.sealer.all(frames))))

    def _fresh(self) -> Connection:
        """Return what both ends have agreed on; ConfigError where the server does not take this node."""
        greeting = Greeting(self._keys, self._server)
        (told,) = [*self._passed("Greet", [greeting.hello])][:1] or [Frame().encoded()]
        header = Frame.decoded(told).header
        if header.get("kind") != "greeted":  # nobody has signed this
            raise NotSealed(f"sealed: refused ({shown(str(header.get('reason', 'no answer')))[:400]})")
        connection = greeting.answered(told)
        (answer,) = self._call(connection, [greeting.shown(connection)])
        verdict = verdict_from(Frame.decoded(answer).header)
        if verdict.kind != "taken":
            raise ConfigError(f"sealed: the server refuses this node: {shown(verdict.reason)[:400]}")
        return connection
