"""The wire: gRPC with certificates on both sides, nodes dial out, everything is a frame.

    Join    hello -> frames of the server: welcome, jobs, end          one stream for as long as a node is there
    Fetch   digest, from a byte on -> the body of the open round       goes on where it broke
    Offer   a report's header -> wanted from a byte on, or refused
    Send    frames of bytes -> taken, wanted from a byte on, refused
    Sum     a message of a secure sum -> taken, or refused
    Say     why a job is not carried out now

Nothing but these six can be asked of a server, and a node can be asked nothing: it only reads its stream. Off loopback
a server starts with certificates alone. Versions of TLS below 1.3 are held to suites with forward secrecy.
"""

import asyncio
import contextlib
import ipaddress
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedloom.base.errors import ConfigError, DataError, FedloomError, RunError
from fedloom.base.extras import library, require
from fedloom.network.answers import Answers, refusing
from fedloom.network.frames import Frame
from fedloom.network.hub import Hub
from fedloom.network.keys import host_of, identity_of
from fedloom.network.link import Unreachable, verdict_from
from fedloom.network.open_round import Verdict
from fedloom.network.pieces import pieces
from fedloom.network.steps import answer_in, in_frames, refusal_of
from fedloom.split.messages import Message

__all__ = ["Keys", "Link", "Unreachable", "Welcome", "is_loopback", "serving"]

_SERVICE = "fedloom.Federation"
_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305"  # and all of TLS 1.3
)
_LARGEST = (1 << 20) + (128 << 10)
_OPTIONS = (
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


Welcome = Callable[[str, Mapping[str, Any]], Frame]
"""Turns a node's name and its hello into the server's answer; a FedloomError refuses it."""


@dataclass(frozen=True)
class Keys:
    """A certificate, its key, and the authority that both sides trust: PEM."""

    certificate: str
    key: bytes
    authority: str


def _grpc() -> Any:
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


# ----------------------------------------------------------------------------------------------------------- a server


@contextlib.contextmanager
def serving(
    hub: Hub,
    address: str,
    keys: Keys | None,
    welcome: Welcome,
    *,
    revoked: Callable[[], frozenset[str]] = frozenset,
) -> Generator[int]:
    """Serve a hub at an address while the block runs, and give the port.

    Without `keys` a node is who it says,
    which is allowed on loopback alone.
    """
    if keys is None and not is_loopback(address):
        raise ConfigError(
            f"listen: found {address} without certificates, allowed is a loopback address such as 127.0.0.1:0; give "
            "--certificate, --key and --ca."
        )
    server = _Server(hub, address, keys, welcome, revoked)
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


class _Server:
    """The event loop of a server, in a thread of its own."""

    def __init__(
        self,
        hub: Hub,
        address: str,
        keys: Keys | None,
        welcome: Welcome,
        revoked: Callable[[], frozenset[str]],
    ) -> None:
        self._hub, self._address, self._keys = hub, address, keys
        self._answers = Answers(hub)
        self._welcome, self._revoked = welcome, revoked
        self._loop = asyncio.new_event_loop()
        self._ready, self._stopped = threading.Event(), asyncio.Event()
        self._failed = ""
        self.port = 0
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)

    def start(self) -> None:
        """Start serving; RunError where the port is taken."""
        self._thread.start()
        self._ready.wait()
        if self._failed:
            self._thread.join()
            raise RunError(self._failed)

    def stop(self) -> None:
        """Let go of all nodes and end."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        grpc = _grpc()
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((self._handlers(grpc),))
        try:
            self.port = self._bound(grpc, server)
        except RuntimeError:
            self._failed = f"listen: {self._address} is taken or is not of this machine; choose another --listen."
            self._ready.set()
            return
        await server.start()
        self._ready.set()
        await self._stopped.wait()
        await server.stop(grace=0.2)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:  # handlers of nodes that are cut off with the server
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _bound(self, grpc: Any, server: Any) -> int:
        if self._keys is None:
            return server.add_insecure_port(self._address)
        pair = [(self._keys.key, self._keys.certificate.encode())]
        asked = grpc.ssl_server_credentials(pair, self._keys.authority.encode(), require_client_auth=True)
        return server.add_secure_port(self._address, asked)

    def _handlers(self, grpc: Any) -> Any:
        kinds = {
            "Join": grpc.unary_stream_rpc_method_handler(self._join),
            "Fetch": grpc.unary_stream_rpc_method_handler(self._fetch),
            "Offer": grpc.unary_unary_rpc_method_handler(self._offer),
            "Send": grpc.stream_unary_rpc_method_handler(self._send),
            "Sum": grpc.unary_unary_rpc_method_handler(self._sum),
            "Say": grpc.unary_unary_rpc_method_handler(self._say),
            "Step": grpc.stream_stream_rpc_method_handler(self._step),
        }
        return grpc.method_handlers_generic_handler(_SERVICE, kinds)

    def _who(self, context: Any) -> str:
        """Return the node that a connection's certificate names; without certificates, the one that it says it is."""
        if self._keys is None:
            name = dict(context.invocation_metadata()).get("fedloom-node", "")
        else:
            who = identity_of(_certificate_of(context))
            if who.kind != "node":
                raise ConfigError(f"certificate of '{who.name}': is a {who.kind}'s, allowed is a node's.")
            if who.fingerprint in self._revoked():
                raise ConfigError(f"certificate of '{who.name}': revoked; ask for a new one.")
            name = who.name
        if name not in self._hub.enrolment.nodes:
            raise ConfigError(f"node '{name[:80]}': is not enrolled.")
        return name

    async def _join(self, data: bytes, context: Any) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[Frame] = asyncio.Queue()

        def send(frame: Frame) -> None:
            self._loop.call_soon_threadsafe(queue.put_nowait, frame)

        try:
            node, hello = self._who(context), Frame.decoded(data).header
            yield self._welcome(node, hello).encoded()
        except FedloomError as error:
            yield Frame({"kind": "refused", "reason": str(error)}).encoded()
            return
        self._hub.joined(node, hello, send, _certificate_of(context) if self._keys else "")
        try:
            while True:
                frame = await queue.get()
                yield frame.encoded()
                if frame.header["kind"] in ("end", "replaced"):
                    return
        finally:
            self._hub.left(node, send)

    async def _fetch(self, data: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            for frame in self._answers.fetched(self._who(context), Frame.decoded(data)):
                yield frame.encoded()
        except FedloomError as error:
            yield Frame({"kind": "refused", "reason": str(error)}).encoded()

    async def _offer(self, data: bytes, context: Any) -> bytes:
        return _answered(lambda: self._answers.offered(self._who(context), Frame.decoded(data)))

    async def _sum(self, data: bytes, context: Any) -> bytes:
        return await asyncio.to_thread(_answered, lambda: self._answers.summed(self._who(context), Frame.decoded(data)))

    async def _say(self, data: bytes, context: Any) -> bytes:
        return _answered(lambda: self._answers.said(self._who(context), Frame.decoded(data)))

    async def _step(self, frames: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Take in a message of a split step, and give its answer once the batch is computed."""
        try:
            node, head, data = self._who(context), dict[str, Any](), bytearray()
            async for piece in frames:
                frame = Frame.decoded(piece)
                head = head or dict(frame.header)
                limit = self._hub.step_bytes(node, head)
                data += frame.body
                if len(data) >= limit:
                    break
            answer = await asyncio.wrap_future(await asyncio.to_thread(self._hub.stepped, node, head, data))
        except FedloomError as error:
            yield refusal_of(error).encoded()
            return
        for frame in in_frames(answer):
            yield frame.encoded()

    async def _send(self, frames: AsyncIterator[bytes], context: Any) -> bytes:
        last = Frame(Verdict("refused", reason="nothing was sent").header()).encoded()
        try:
            node = self._who(context)
        except FedloomError as error:
            return Frame(Verdict("refused", reason=str(error)[:4000]).header()).encoded()
        async for data in frames:
            # Off the event loop: pieces are written, and what is whole is hashed and decoded.
            last = await asyncio.to_thread(
                _answered, lambda data=data: self._answers.arrived(node, Frame.decoded(data))
            )
            if Frame.decoded(last).header["kind"] != "wanted":
                break
        return last


def _answered(ask: Callable[[], Verdict]) -> bytes:
    return Frame(refusing(ask).header()).encoded()


def _certificate_of(context: Any) -> str:
    return context.auth_context().get("x509_pem_cert", [b""])[0].decode()


# ------------------------------------------------------------------------------------------------------------- a node


class Link:
    """A node's connection to its server; what does not get through raises `Unreachable`."""

    def __init__(self, address: str, server: str, keys: Keys | None, node: str) -> None:
        if keys is None and not is_loopback(address):
            raise ConfigError(f"server: found {address} without certificates, allowed is a loopback address.")
        self.where, grpc = address, _grpc()
        if keys is None:
            self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        else:
            asked = grpc.ssl_channel_credentials(keys.authority.encode(), keys.key, keys.certificate.encode())
            named = (*_OPTIONS, ("grpc.ssl_target_name_override", host_of(server)))
            self._channel = grpc.secure_channel(address, asked, options=named)
        self._metadata = (("fedloom-node", node),) if keys is None else ()
        self._errors = grpc.RpcError

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def _method(self, kind: str, name: str) -> Any:
        return {
            "unary_unary": self._channel.unary_unary,
            "unary_stream": self._channel.unary_stream,
            "stream_unary": self._channel.stream_unary,
            "stream_stream": self._channel.stream_stream,
        }[kind](f"/{_SERVICE}/{name}")

    def join(self, hello: Mapping[str, Any]) -> Iterator[Frame]:
        """Yield the frames that the server sends, for as long as the connection stands."""
        stream = self._method("unary_stream", "Join")(Frame(hello).encoded(), metadata=self._metadata)
        with self._reached():
            for data in stream:
                yield Frame.decoded(data)

    def fetch(self, digest: str, start: int) -> Iterator[bytes]:
        """Yield the bytes of a body from a place on."""
        asked = Frame({"kind": "fetch", "digest": digest, "start": start}).encoded()
        with self._reached():
            for data in self._method("unary_stream", "Fetch")(asked, metadata=self._metadata):
                frame = Frame.decoded(data)
                if frame.header.get("kind") != "piece":
                    raise DataError(str(frame.header.get("reason", "the server sent no bytes"))[:400])
                yield frame.body

    def offer(self, header: Mapping[str, Any]) -> Verdict:
        """Return what the server says to a report's header."""
        with self._reached():
            return _verdict(self._method("unary_unary", "Offer")(Frame(header).encoded(), metadata=self._metadata))

    def send(self, head: Mapping[str, Any], packet: bytes, start: int) -> Verdict:
        """Send a packet from a byte on under a header; return what the server says to the last of it."""

        def frames() -> Iterator[bytes]:
            at = start
            for piece in pieces(packet, start):
                yield Frame({**head, "start": at}, piece).encoded()
                at += len(piece)
            if start >= len(packet):
                yield Frame({**head, "start": start}).encoded()

        with self._reached():
            return _verdict(self._method("stream_unary", "Send")(frames(), metadata=self._metadata))

    def exchange(self, job: str, message: Message) -> Message:
        """Send a message of a split step, and return the server's answer to it; DataError where there is none."""
        with self._reached():
            sent = (frame.encoded() for frame in in_frames(message, job))
            pieces = self._method("stream_stream", "Step")(sent, metadata=self._metadata)
            return answer_in(map(Frame.decoded, pieces), message, self.where)

    def sum(self, header: Mapping[str, Any], body: bytes) -> Verdict:
        """Send a message of a secure sum."""
        with self._reached():
            sent = Frame({**header, "kind": "sum"}, body).encoded()
            return _verdict(self._method("unary_unary", "Sum")(sent, metadata=self._metadata))

    def ping(self) -> str:
        """Return what the server says to a node that asks for nothing: that it knows it, or why not."""
        verdict = self.offer({"kind": "report", "job": ""})
        return "it knows this node" if verdict.kind == "closed" else verdict.reason

    def say(self, job: str, reason: str) -> None:
        """Tell the server why a job is not carried out now."""
        frame = Frame({"kind": "declined", "job": job, "reason": reason[:2000]})
        with self._reached():
            self._method("unary_unary", "Say")(frame.encoded(), metadata=self._metadata)

    @contextlib.contextmanager
    def _reached(self) -> Generator[None]:
        try:
            yield
        except self._errors as error:
            raise Unreachable(self._said(error)) from error

    def _said(self, error: Any) -> str:
        """Return in one line why the server cannot be reached; who breaks TLS on the way is named."""
        told = str(error.details() or "")
        if any(word in told.lower() for word in ("certificate", "ssl", "tls", "handshake")):
            return (
                f"{self.where}: the connection is not that of the server this node knows ({told[:200]}): its "
                "certificate is of another authority or name, yours is not accepted, or something between ends TLS."
            )
        return f"{self.where}: not reached ({error.code().name.lower()}: {told[:200]}); it is tried again."


def _verdict(data: bytes) -> Verdict:
    return verdict_from(Frame.decoded(data).header)
