"""How two ends agree on keys through whatever lies between: X25519 of two keys made for it, signed by who they are.

    node -> server    a public key
    server -> node    a public key, its certificate, the run, its signature of the transcript
    node -> server    sealed, as call 0: its certificate, its signature of the transcript
    server -> node    sealed: that it may go on, or why not

The transcript is the hash of both public keys, of the server's certificate and of the run, so that a signature is of
this one exchange (SIGMA-I, Krawczyk, CRYPTO 2003: the sealed record is the MAC of its identities). HKDF-SHA256 makes
of the shared secret, with the transcript as salt, a secret from which each call has a key for each direction. Both
private keys are forgotten: a certificate's key that is stolen later opens nothing.

A call has a number, each is taken once, and numbers lie within 64 of the latest; so calls may overtake one another, as
they do over gRPC, and records within one may not.

Deviation from 4.6 of the specification: signatures are ECDSA over P-256, as are all of a federation's certificates.
"""

import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedloom.base.errors import ConfigError
from fedloom.base.extras import library
from fedloom.network.frames import Frame, text_in, whole_in
from fedloom.network.keys import Keys, check, sign_with, verify_bytes
from fedloom.network.sealed import LIMITS, Limits, NotSealed, Opener, Sealer, derived

__all__ = ["Call", "Connection", "Connections", "Greeting"]

_VERSION, _WINDOW, _MOST = 1, 64, 4096
"""Of this exchange; calls that may be overtaken; connections that a server keeps, without the oldest."""
_CALL_BYTES = 16 + 8


@dataclass(frozen=True)
class Call:
    """One call: what it begins with on the way to the server, and both directions as one end has them."""

    opening: bytes
    sealer: Sealer
    opener: Opener


@dataclass
class Connection:
    """What both ends know after they have agreed."""

    run: str
    transcript: bytes
    secret: bytes = field(repr=False)
    limits: Limits = LIMITS
    certificate: str = ""
    """At the server: the node's, once it has shown it."""
    since_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._number, self._came, self._turn = -1, set[int](), threading.Lock()

    @property
    def name(self) -> bytes:
        """What a call names the connection by."""
        return self.transcript[:16]

    @property
    def is_old(self) -> bool:
        """Whether it is time to agree anew."""
        return time.monotonic() - self.since_s >= self.limits.age_s or self._number >= self.limits.records

    def next_call(self) -> Call:
        """Return the node's next call."""
        with self._turn:
            self._number += 1
            return self._call(self._number, at_node=True)

    def taken(self, number: int) -> Call:
        """Return the server's end of a call; NotSealed for one that was taken before, or was overtaken by many."""
        with self._turn:
            if number in self._came or number <= self._number - _WINDOW:
                raise NotSealed(f"sealed: call {number} was made before.")
            self._number = max(self._number, number)
            self._came = {one for one in self._came if one > self._number - _WINDOW} | {number}
        return self._call(number, at_node=False)

    def _call(self, number: int, *, at_node: bool) -> Call:
        opening = self.name + number.to_bytes(8, "big")
        place = b"|".join((self.run.encode(), self.transcript, opening))
        up, down = ((derived(self.secret, opening + way), place + way) for way in (b"up", b"down"))
        if at_node:
            return Call(opening, Sealer(*up, limits=self.limits), Opener(*down))
        return Call(opening, Sealer(*down, limits=self.limits), Opener(*up))


class Greeting:
    """A node's half: `hello` goes to the server, what it answers makes the connection."""

    def __init__(self, keys: Keys, server: str, limits: Limits = LIMITS) -> None:
        self._keys, self._server, self._limits = keys, server, limits
        self._key = _x25519().X25519PrivateKey.generate()
        self.hello = Frame({"kind": "greeting", "version": _VERSION, "public": _public(self._key)}).encoded()

    def answered(self, data: bytes) -> Connection:
        """Return the connection of a server's answer; ConfigError where it is of another than this node knows."""
        header = Frame.decoded(data).header
        certificate, run = text_in(header, "certificate", longest=8000), text_in(header, "run", longest=64)
        connection = _agreed(self._key, header, (self.hello, data_of(header)), run, self._limits)
        who = check(certificate, self._keys.authority, "server")
        if who.name != self._server or not _signed(certificate, b"server", connection, header):
            raise ConfigError(f"server '{who.name}': has not signed this exchange, or is not '{self._server}'.")
        return connection

    def shown(self, connection: Connection) -> bytes:
        """Return what shows the server who this is."""
        signature = sign_with(self._keys.key, b"node" + connection.transcript).hex()
        return Frame({"kind": "node", "certificate": self._keys.certificate, "signature": signature}).encoded()


class Connections:
    """A server's half: the connections that nodes have, by name."""

    def __init__(self, keys: Keys, run: str, limits: Limits = LIMITS) -> None:
        self._keys, self._run, self._limits = keys, run, limits
        self._known: dict[bytes, Connection] = {}

    def greeted(self, data: bytes) -> bytes:
        """Return the answer to a node's hello; a FedloomError refuses it."""
        hello = Frame.decoded(data).header
        if (found := whole_in(hello, "version")) != _VERSION:
            raise ConfigError(f"sealed: the node's version is {found}, the server's {_VERSION}; update one.")
        key = _x25519().X25519PrivateKey.generate()
        told = {"kind": "greeted", "public": _public(key), "certificate": self._keys.certificate, "run": self._run}
        connection = _agreed(key, hello, (data, data_of(told)), self._run, self._limits)
        kept = [one for one in self._known.values() if one.since_s > connection.since_s - 2 * self._limits.age_s]
        self._known = {one.name: one for one in (*kept[1 - _MOST :], connection)}
        return Frame(told | {"signature": sign_with(self._keys.key, b"server" + connection.transcript).hex()}).encoded()

    def call(self, opening: bytes) -> tuple[Connection, Call]:
        """Return whose call begins so, and its end here; NotSealed for a connection that is not known."""
        connection = self._known.get(opening[:16])
        if connection is None or len(opening) != _CALL_BYTES:
            raise NotSealed("sealed: a connection that this server does not know; the node greets it again.")
        return connection, connection.taken(int.from_bytes(opening[16:], "big"))

    def show(self, connection: Connection, data: bytes) -> None:
        """Take note who a node is, by the certificate of this authority whose key has signed: ConfigError."""
        header = Frame.decoded(data).header
        certificate = text_in(header, "certificate", longest=8000)
        who = check(certificate, self._keys.authority, "node")
        if not _signed(certificate, b"node", connection, header):
            raise ConfigError(f"node '{who.name}': has not signed this exchange.")
        connection.certificate = certificate


def data_of(header: Mapping[str, Any]) -> bytes:
    """Return what of a server's answer is signed: all but the signature."""
    return Frame({key: header[key] for key in sorted(header) if key != "signature"}).encoded()


def _agreed(key: Any, other: Mapping[str, Any], said: tuple[bytes, bytes], run: str, limits: Limits) -> Connection:
    """Return the connection of a private key, the other end's public one, and what both have said."""
    transcript = hashlib.sha256(b"".join(len(one).to_bytes(4, "big") + one for one in said)).digest()
    kdf, hashes = (library(f"cryptography.hazmat.primitives.{name}", "sealed") for name in ("kdf.hkdf", "hashes"))
    try:
        public = _x25519().X25519PublicKey.from_public_bytes(bytes.fromhex(text_in(other, "public", longest=64)))
        shared = key.exchange(public)
    except ValueError as error:
        raise NotSealed(f"sealed: found no public key of X25519 ({error}).") from error
    secret = kdf.HKDF(hashes.SHA256(), 32, transcript, b"fedloom sealed 1").derive(shared)
    return Connection(run, transcript, secret, limits)


def _signed(certificate: str, who: bytes, connection: Connection, header: Mapping[str, Any]) -> bool:
    try:
        signature = bytes.fromhex(text_in(header, "signature", longest=400))
    except ValueError:
        return False
    return verify_bytes(certificate, who + connection.transcript, signature)


def _x25519() -> Any:
    return library("cryptography.hazmat.primitives.asymmetric.x25519", "sealed")


def _public(key: Any) -> str:
    return key.public_key().public_bytes_raw().hex()
