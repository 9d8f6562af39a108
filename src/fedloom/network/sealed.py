"""Bytes that only the two ends of a call read, whatever carries them: AES-256-GCM, a key for each direction of a call.

    4 bytes   "FLX1"
    4 bytes   epoch, and 8 bytes counter, big-endian: together the nonce, never drawn and never twice under a key
    1 byte    1 in the last record of a direction, 0 in the others
    the bytes encrypted, and 16 bytes of tag over them, over the head and over where they belong: run, connection, call
    and direction

The reader wants each counter in its turn, so that what is sent twice, out of turn, elsewhere or changed is refused, and
an end without a last record is known for what was cut off. After so many records, bytes or seconds the writer begins an
epoch with a key that follows from the last one by HKDF and does not lead back to it; the reader sees it in the head.
Counters go on through epochs, so that nothing is left out where one begins.

Deviation from 4.6 of the specification: a frame's header is no additional data but encrypted with its body, which
authenticates all of it and hides lengths, clients and weights besides.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fedloom.base.errors import DataError
from fedloom.base.extras import library

__all__ = ["EXTRA_BYTES", "LIMITS", "Limits", "NotSealed", "Opener", "Sealer", "derived"]

_MAGIC = b"FLX1"
_HEAD, _TAG = len(_MAGIC) + 4 + 8 + 1, 16
EXTRA_BYTES = _HEAD + _TAG
"""By which a record is longer than what it holds."""


class NotSealed(DataError):
    """Bytes that the other end has not sealed, or not for this place; nothing is made of them."""


@dataclass(frozen=True)
class Limits:
    """How long a key is used."""

    records: int = 1 << 32
    n_bytes: int = 1 << 40
    age_s: float = 3600.0


LIMITS = Limits()


def derived(secret: bytes, told: bytes) -> bytes:
    """Return 32 bytes that follow from a secret and from what they are for: HKDF-Expand of RFC 5869 with SHA-256."""
    kdf, hashes = (library(f"cryptography.hazmat.primitives.{name}", "sealed") for name in ("kdf.hkdf", "hashes"))
    return kdf.HKDFExpand(hashes.SHA256(), 32, told).derive(secret)


def _cipher(key: bytes) -> Any:
    return library("cryptography.hazmat.primitives.ciphers.aead", "sealed").AESGCM(key)


@dataclass
class _Direction:
    """A key, the place of the next record, and what its tags are over besides."""

    key: bytes
    place: bytes
    """Run, connection, call and direction."""

    def __post_init__(self) -> None:
        self._aead, self._epoch, self._counter = _cipher(self.key), 0, 0

    def _begin_epoch(self, key: bytes) -> None:
        self.key, self._aead, self._epoch = key, _cipher(key), self._epoch + 1


@dataclass
class Sealer(_Direction):
    """The writing end of a direction."""

    limits: Limits = LIMITS
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        super().__post_init__()
        self._first, self._n_bytes, self._since_s = 0, 0, self.clock()

    def seal(self, data: bytes, *, last: bool = False) -> bytes:
        """Return bytes as the next record."""
        limits = self.limits
        n_records, age_s = self._counter - self._first, self.clock() - self._since_s
        spent = n_records >= limits.records or self._n_bytes + len(data) > limits.n_bytes or age_s >= limits.age_s
        if spent and n_records:
            self._begin_epoch(_next_key(self.key))
            self._first, self._n_bytes, self._since_s = self._counter, 0, self.clock()
        nonce = self._epoch.to_bytes(4, "big") + self._counter.to_bytes(8, "big")
        head = _MAGIC + nonce + bytes([last])
        self._counter, self._n_bytes = self._counter + 1, self._n_bytes + len(data)
        return head + self._aead.encrypt(nonce, data, head + self.place)

    def all(self, many: Iterable[bytes]) -> Iterator[bytes]:
        """Yield records of many, and the last one, which holds nothing."""
        for data in many:
            yield self.seal(data)
        yield self.seal(b"", last=True)


@dataclass
class Opener(_Direction):
    """The reading end of a direction; what it refuses changes nothing."""

    over: bool = False
    """Whether the last record has come."""

    def open(self, record: bytes) -> bytes:
        """Return what the next record holds; NotSealed for any other bytes."""
        head, nonce = record[:_HEAD], record[len(_MAGIC) : _HEAD - 1]
        if self.over or len(record) < EXTRA_BYTES or head[: len(_MAGIC)] != _MAGIC:
            raise NotSealed(f"sealed: {len(record)} bytes that are no record, or come after the last one.")
        place = int.from_bytes(nonce[:4], "big"), int.from_bytes(nonce[4:], "big")
        anew = place[0] == self._epoch + 1
        if place[1] != self._counter or not (anew or place[0] == self._epoch):
            raise NotSealed(
                f"sealed: found record {place[1]} of epoch {place[0]}, allowed is {self._counter} of {self._epoch}: it "
                "was sent again, left out or put elsewhere on the way."
            )
        key = _next_key(self.key) if anew else self.key
        try:
            data = (_cipher(key) if anew else self._aead).decrypt(nonce, record[_HEAD:], head + self.place)
        except library("cryptography.exceptions", "sealed").InvalidTag as error:
            raise NotSealed("sealed: a record was changed on the way, or is of another connection.") from error
        if anew:
            self._begin_epoch(key)
        self._counter, self.over = self._counter + 1, bool(head[-1])
        return data

    def all(self, records: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what records hold up to the last one; NotSealed where they end before it."""
        for record in records:
            data = self.open(record)
            if self.over:
                return
            yield data
        self.refuse_cut()

    def refuse_cut(self) -> None:
        """Refuse an end before the last record: NotSealed."""
        if not self.over:
            raise NotSealed("sealed: the call was cut off on the way, before its last record.")


def _next_key(key: bytes) -> bytes:
    return derived(key, b"fedloom sealed, next epoch")
