"""A server's door: what nodes may ask of it over gRPC, with certificates on both sides; everything is a frame.

    Join    hello -> frames of the server: welcome, jobs, end          one stream for as long as a node is there
    Fetch   digest, from a byte on -> the body of the open round       goes on where it broke
    Offer   a report's header -> wanted from a byte on, or refused
    Send    frames of bytes -> taken, wanted from a byte on, refused
    Sum     a message of a secure sum -> taken, or refused
    Step    a message of a split step -> its answer, or refused
    Say     why a job is not carried out now
    Greet   a public key -> the server's, signed                       where calls are sealed (`handshake.py`)
    Sealed  any of these as records that only the two ends read        (`sealed.py`)

Nothing else can be asked of a server, and a node can be asked nothing: it only reads its stream. Off loopback a server
starts with certificates alone. Versions of TLS below 1.3 are held to suites with forward secrecy.

A node is who its certificate names. That of a clear call is the one of TLS; that of a sealed one was shown in its
handshake, and TLS may have been ended by a relay that the server names: a node's certificate of its own, which is not
enrolled and opens nothing.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from fedloom.base.errors import ConfigError, DataError, FedloomError, RunError
from fedloom.network.answers import Answers, refusing
from fedloom.network.channel import OPTIONS, SERVICE, grpc_library, is_loopback
from fedloom.network.frames import Frame, text_in
from fedloom.network.handshake import Connection, Connections
from fedloom.network.hub import Hub
from fedloom.network.keys import Identity, Keys, identity_of
from fedloom.network.open_round import Verdict
from fedloom.network.sealed import NotSealed, Opener
from fedloom.network.steps import in_frames, refusal_of

__all__ = ["Welcome", "serving"]

_log = logging.getLogger(__name__)

Welcome = Callable[[str, Mapping[str, Any]], Frame]
"""Turns a node's name and its hello into the server's answer; a FedloomError refuses it."""


@dataclass(frozen=True)
class _Caller:
    """Who makes a call."""

    certificate: str
    """PEM; "" where there are none."""
    said: str = ""
    """The name that a node without a certificate gives itself."""
    sealed: bool = False


@contextlib.contextmanager
def serving(
    hub: Hub,
    address: str,
    keys: Keys | None,
    welcome: Welcome,
    *,
    revoked: Callable[[], frozenset[str]] = frozenset,
    relays: Collection[str] = (),
) -> Generator[int]:
    """Serve a hub at an address while the block runs, and give the port.

    Without `keys` a node is who it says,
    which is allowed on loopback alone. `relays` are the names of those that may carry sealed calls.
    """
    if keys is None and not is_loopback(address):
        raise ConfigError(
            f"listen: found {address} without certificates, allowed is a loopback address such as 127.0.0.1:0; give "
            "--certificate, --key and --ca."
        )
    if keys is None and (relays or hub.settings.sealed):
        raise ConfigError("sealed: found a server without certificates; give --certificate, --key and --ca.")
    enrolled = sorted(set(relays) & hub.enrolment.nodes.keys())
    if enrolled:
        raise ConfigError(f"relay: found '{enrolled[0]}', which is a node; allowed is a name that is not enrolled.")
    server = _Server(hub, address, keys, welcome, revoked, frozenset(relays))
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
        relays: frozenset[str],
    ) -> None:
        self._hub, self._address, self._keys = hub, address, keys
        self._answers = Answers(hub)
        self._welcome, self._revoked, self._relays = welcome, revoked, relays
        self._connections = Connections(keys, hub.run) if keys else None
        self._calls: dict[str, _Handler] = {
            "Join": self._join,
            "Fetch": self._fetch,
            "Offer": self._offer,
            "Send": self._send,
            "Sum": self._sum,
            "Say": self._say,
            "Step": self._step,
        }
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
        grpc = grpc_library()
        server = grpc.aio.server(options=OPTIONS)
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
        kinds: dict[str, Any] = {name: self._clear(name) for name in self._calls}
        if self._connections:
            kinds |= {"Greet": self._greet, "Sealed": self._sealed}
        # On the wire a call of one message is a stream of one.
        streams = {name: grpc.stream_stream_rpc_method_handler(kind) for name, kind in kinds.items()}
        return grpc.method_handlers_generic_handler(SERVICE, streams)

    def _clear(self, name: str) -> Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]:
        """Return what gRPC calls for a call that is not sealed."""

        async def answers(frames: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            said = dict(context.invocation_metadata()).get("fedloom-node", "")
            async for answer in self._carried(name, frames, _Caller(_certificate_of(context), said)):
                yield answer

        return answers

    def _who(self, caller: _Caller) -> str:
        """Return the node that a certificate names; without certificates, the one that it says it is."""
        if self._keys is None:
            name = caller.said
        else:
            if self._hub.settings.sealed and not caller.sealed:
                raise ConfigError("deployment.sealed: found a call in clear; set sealed = true in node.toml.")
            name = self._valid(caller.certificate).name
        if name not in self._hub.enrolment.nodes:
            raise ConfigError(f"node '{name[:80]}': is not enrolled.")
        return name

    def _valid(self, certificate: str) -> Identity:
        who = identity_of(certificate)
        if who.kind != "node":
            raise ConfigError(f"certificate of '{who.name}': is a {who.kind}'s, allowed is a node's.")
        if who.fingerprint in self._revoked():
            raise ConfigError(f"certificate of '{who.name}': revoked; ask for a new one.")
        return who

    # ------------------------------------------------------------------------------------------------ sealed calls

    async def _greet(self, frames: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Agree on keys with a node that is still to say which it is."""
        data = await _first(frames)
        try:
            peer = self._valid(_certificate_of(context)).name
            if peer not in self._relays and peer not in self._hub.enrolment.nodes:
                raise ConfigError(f"relay: found '{peer[:80]}', which may carry no calls; name it by --relay.")
            yield self._connections.greeted(data) if self._connections else b""
        except FedloomError as error:
            yield Frame(Verdict("refused", reason=str(error)[:4000]).header()).encoded()

    async def _sealed(self, records: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Carry out a sealed call; one that was not sealed by this node for this place is broken off, unanswered."""
        try:
            async for record in self._opened(records, context):
                yield record
        except FedloomError as error:
            _log.warning("%s", error)
            await context.abort(grpc_library().StatusCode.UNAUTHENTICATED, str(error))

    async def _opened(self, records: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        if self._connections is None:
            return
        connection, call = self._connections.call(await _first(records))
        frames = _unsealed(call.opener, records)
        first = await _first(frames)
        if not connection.certificate:
            answers = _of(_answered(lambda: self._shown(connection, first, context)))
        else:
            name = text_in(Frame.decoded(first).header, "name", longest=40)
            answers = self._carried(name, frames, _Caller(connection.certificate, sealed=True))
        async for answer in answers:
            yield call.sealer.seal(answer)
        yield call.sealer.seal(b"", last=True)

    async def _carried(self, name: str, frames: AsyncIterator[bytes], caller: _Caller) -> AsyncIterator[bytes]:
        """Carry out a call, and count what passes."""
        if name not in self._calls:
            raise DataError(f"found call '{name}', which is none of a node.")

        async def counted() -> AsyncIterator[bytes]:
            async for data in frames:
                self._hub.meters.add("bytes_received", len(data), call=name)
                yield data

        async for answer in self._calls[name](counted(), caller):
            self._hub.meters.add("bytes_sent", len(answer), call=name)
            yield answer

    def _shown(self, connection: Connection, data: bytes, context: Any) -> Verdict:
        """Take note which node is behind a connection; whoever is no relay stands behind its own alone."""
        if self._connections:
            self._connections.show(connection, data)
        peer, name = self._valid(_certificate_of(context)).name, self._who(_Caller(connection.certificate, sealed=True))
        if peer not in self._relays and peer != name:
            connection.certificate = ""
            raise ConfigError(f"relay: found '{peer[:80]}' for node '{name}'; name it by --relay.")
        return Verdict("taken")

    # ------------------------------------------------------------------------------------------------ what is asked

    async def _join(self, frames: AsyncIterator[bytes], caller: _Caller) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[Frame] = asyncio.Queue()

        def send(frame: Frame) -> None:
            self._loop.call_soon_threadsafe(queue.put_nowait, frame)

        data = await _first(frames)
        try:
            node, hello = self._who(caller), Frame.decoded(data).header
            yield self._welcome(node, hello).encoded()
        except FedloomError as error:
            yield Frame({"kind": "refused", "reason": str(error)}).encoded()
            return
        self._hub.joined(node, hello, send, caller.certificate)
        try:
            while True:
                frame = await queue.get()
                yield frame.encoded()
                if frame.header["kind"] in ("end", "replaced"):
                    return
        finally:
            self._hub.left(node, send)

    async def _fetch(self, frames: AsyncIterator[bytes], caller: _Caller) -> AsyncIterator[bytes]:
        data = await _first(frames)
        try:
            for frame in self._answers.fetched(self._who(caller), Frame.decoded(data)):
                yield frame.encoded()
        except FedloomError as error:
            yield Frame({"kind": "refused", "reason": str(error)}).encoded()

    async def _offer(self, frames: AsyncIterator[bytes], caller: _Caller) -> AsyncIterator[bytes]:
        data = await _first(frames)
        yield _answered(lambda: self._answers.offered(self._who(caller), Frame.decoded(data)))

    async def _sum(self, frames: AsyncIterator[bytes], caller: _Caller) -> AsyncIterator[bytes]:
        data = await _first(frames)
        ask = lambda: self._answers.summed(self._who(caller), Frame.decoded(data))  # noqa: E731
        yield await asyncio.to_thread(_answered, ask)

    async def _say(self, frames: AsyncIterator[bytes], caller: _Caller) -> AsyncIterator[bytes]:
        data = await _first(frames)
        yield _answered(lambda: self._answers.said(self._who(caller), Frame.decoded(data)))

    async def _step(self, frames: AsyncIterator[bytes], caller: _Caller) -> AsyncIterator[bytes]:
        """Take in a message of a split step, and give its answer once the batch is computed."""
        try:
            node, head, data = self._who(caller), dict[str, Any](), bytearray()
            async for piece in frames:
                frame = Frame.decoded(piece)
                head = head or dict(frame.header)
                limit = self._hub.step_bytes(node, head)
                data += frame.body
                if len(data) >= limit:
                    break
            answer = await asyncio.wrap_future(await asyncio.to_thread(self._hub.stepped, node, head, data))
        except NotSealed:
            raise
        except FedloomError as error:
            yield refusal_of(error).encoded()
            return
        for frame in in_frames(answer):
            yield frame.encoded()

    async def _send(self, frames: AsyncIterator[bytes], caller: _Caller) -> AsyncIterator[bytes]:
        last = Frame(Verdict("refused", reason="nothing was sent").header()).encoded()
        try:
            node = self._who(caller)
        except FedloomError as error:
            yield Frame(Verdict("refused", reason=str(error)[:4000]).header()).encoded()
            return
        async for data in frames:
            # Off the event loop: pieces are written, and what is whole is hashed and decoded.
            last = await asyncio.to_thread(
                _answered, lambda data=data: self._answers.arrived(node, Frame.decoded(data))
            )
            if Frame.decoded(last).header["kind"] != "wanted":
                break
        yield last


_Handler = Callable[[AsyncIterator[bytes], _Caller], AsyncIterator[bytes]]


async def _first(frames: AsyncIterator[bytes]) -> bytes:
    async for data in frames:
        return data
    raise DataError("nothing was sent.")


async def _of(answer: bytes) -> AsyncIterator[bytes]:
    yield answer


async def _unsealed(opener: Opener, records: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what records hold up to the last one; NotSealed where they end before it."""
    async for record in records:
        data = opener.open(record)
        if opener.over:
            return
        yield data
    opener.refuse_cut()


def _answered(ask: Callable[[], Verdict]) -> bytes:
    return Frame(refusing(ask).header()).encoded()


def _certificate_of(context: Any) -> str:
    return context.auth_context().get("x509_pem_cert", [b""])[0].decode()
