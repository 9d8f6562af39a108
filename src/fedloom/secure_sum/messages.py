"""What parties and collector send each other: frozen records, and how they are written and read.

A record becomes a table of words, lists and hexadecimal bytes that any JSON carries, and a row becomes its bytes.
Reading is strict: a table has the keys of its record alone, each value its kind and size, each name one of the terms'.
Raises DataError for all else. Who sent a record is for the carrier to establish; signatures and seals are beside it.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError
from fedloom.secure_sum.masks import KEY_BYTES
from fedloom.secure_sum.numbers import row_bytes, row_of
from fedloom.secure_sum.sealing import TAG_BYTES
from fedloom.secure_sum.shamir import SHARE_BYTES
from fedloom.secure_sum.terms import Terms, packed

__all__ = [
    "Advert",
    "Box",
    "Confirmation",
    "Confirmations",
    "MaskedRow",
    "Opened",
    "Roster",
    "Shares",
    "Survivors",
]

_MOST_SIGNATURE_BYTES = 1024


def _refused(terms: Terms, where: str, found: str, allowed: str) -> DataError:
    return DataError(f"secure sum, round {terms.round}, {where}: found {found}, allowed is {allowed}; send it anew.")


@dataclass(frozen=True)
class _Kind:
    """How a field is written and how it is read; reading is told the terms and where it is."""

    write: Callable[[Any], Any]
    read: Callable[[Any, Terms, str], Any]


def _read_name(value: Any, terms: Terms, where: str) -> str:
    if not isinstance(value, str) or value not in terms.clients:
        raise _refused(terms, where, "a name that is not of this sum", "one of its clients")
    return value


def _read_names(value: Any, terms: Terms, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > len(terms.clients):
        raise _refused(terms, where, "no list of names", f"a list of at most {len(terms.clients)}")
    names = tuple(_read_name(one, terms, where) for one in value)
    if list(names) != sorted(set(names)):
        raise _refused(terms, where, "names twice or out of order", "sorted names")
    return names


_NAME = _Kind(str, _read_name)
_NAMES = _Kind(list, _read_names)


def _bytes(least: int, most: int | None = None) -> _Kind:
    """Return the kind of bytes of one size, or of a range of sizes."""
    most = most or least

    def read(value: Any, terms: Terms, where: str) -> bytes:
        try:
            found = bytes.fromhex(value) if isinstance(value, str) and len(value) <= 2 * most else b""
        except ValueError:
            found = b""
        if not least <= len(found) <= most or found.hex() != value:
            raise _refused(terms, where, "no such bytes", f"{least} to {most} bytes in lower-case hexadecimal")
        return found

    return _Kind(bytes.hex, read)


def _by_name(kind: _Kind) -> _Kind:
    """Return the kind of a mapping from names."""

    def write(value: Mapping[str, Any]) -> dict[str, Any]:
        return {name: kind.write(value[name]) for name in sorted(value)}

    def read(value: Any, terms: Terms, where: str) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > len(terms.clients):
            raise _refused(terms, where, "no table by name", f"one of at most {len(terms.clients)} entries")
        return {_read_name(name, terms, where): kind.read(one, terms, f"{where}.{name}") for name, one in value.items()}

    return _Kind(write, read)


@dataclass(frozen=True)
class _Message:
    """A record whose fields all have a kind."""

    kinds: ClassVar[Mapping[str, _Kind]]

    def to_table(self) -> dict[str, Any]:
        """Return the record as a table for JSON."""
        return {field.name: self.kinds[field.name].write(vars(self)[field.name]) for field in fields(self)}

    @classmethod
    def from_table(cls, table: Any, terms: Terms) -> Self:
        """Return the record that a table holds; DataError for whatever is not exactly one."""
        where = cls.__name__.lower()
        if not isinstance(table, dict) or set(table) != set(cls.kinds):
            raise _refused(terms, where, "other keys", f"a table of {', '.join(cls.kinds)}")
        return cls(**{name: kind.read(table[name], terms, f"{where}.{name}") for name, kind in cls.kinds.items()})


@dataclass(frozen=True)
class Advert(_Message):
    """A party's public keys for this round, signed by its identity. Phase 1, from a party."""

    sender: str
    mask_key: bytes
    """X25519: what its masks with others come from."""
    seal_key: bytes
    """X25519: what letters to it are sealed with."""
    seed_hash: bytes
    """SHA-256 of the seed of its own mask, so that altered shares of it are found out."""
    signature: bytes

    kinds = {  # noqa: RUF012 - a ClassVar by the base class
        "sender": _NAME,
        "mask_key": _bytes(KEY_BYTES),
        "seal_key": _bytes(KEY_BYTES),
        "seed_hash": _bytes(32),
        "signature": _bytes(1, _MOST_SIGNATURE_BYTES),
    }

    def body(self, terms: Terms) -> bytes:
        """Return what the signature covers."""
        return terms.signed("advert", self.sender.encode(), self.mask_key, self.seal_key, self.seed_hash)


def _read_adverts(value: Any, terms: Terms, where: str) -> tuple[Advert, ...]:
    if not isinstance(value, list) or len(value) > len(terms.clients):
        raise _refused(terms, where, "no list of adverts", f"a list of at most {len(terms.clients)}")
    adverts = tuple(Advert.from_table(one, terms) for one in value)
    senders = [advert.sender for advert in adverts]
    if senders != sorted(set(senders)):
        raise _refused(terms, where, "senders twice or out of order", "one advert of each, by name")
    return adverts


@dataclass(frozen=True)
class Roster(_Message):
    """Who advertised, with all keys, by name: the same for all. Phase 2, to the parties."""

    adverts: tuple[Advert, ...]

    kinds = {"adverts": _Kind(lambda adverts: [one.to_table() for one in adverts], _read_adverts)}  # noqa: RUF012

    @property
    def names(self) -> tuple[str, ...]:
        """Who advertised."""
        return tuple(advert.sender for advert in self.adverts)

    def digest(self, terms: Terms) -> bytes:
        """Return 32 bytes that stand for all names and keys."""
        return hashlib.sha256(packed(*(one.body(terms) for one in self.adverts))).digest()


_LETTER = _bytes(2 * SHARE_BYTES + TAG_BYTES)


@dataclass(frozen=True)
class Shares(_Message):
    """For each neighbour the sealed shares of the sender's two secrets. Phase 2, from a party."""

    sender: str
    sealed: Mapping[str, bytes]

    kinds = {"sender": _NAME, "sealed": _by_name(_LETTER)}  # noqa: RUF012


@dataclass(frozen=True)
class Box(_Message):
    """The letters to a party, by sender. Phase 3, to that party."""

    receiver: str
    sealed: Mapping[str, bytes]

    kinds = {"receiver": _NAME, "sealed": _by_name(_LETTER)}  # noqa: RUF012


@dataclass(frozen=True, eq=False)
class MaskedRow:
    """A row [S] under its masks. Phase 3, from a party."""

    sender: str
    row_S: NDArray[np.uint32]

    def to_bytes(self) -> bytes:
        """Return 4 S bytes, little-endian."""
        return row_bytes(self.row_S)

    @classmethod
    def from_bytes(cls, sender: str, data: bytes, terms: Terms) -> "MaskedRow":
        """Return the row that a sender's bytes hold, without a copy where the machine allows it."""
        where = "masked row"
        if len(data) != 4 * terms.size:
            raise _refused(terms, where, f"{len(data)} bytes", f"{4 * terms.size}")
        return cls(_read_name(sender, terms, where), row_of(data))


@dataclass(frozen=True)
class Survivors(_Message):
    """Whose rows are in the sum. Phase 4, to the parties among them."""

    names: tuple[str, ...]

    kinds = {"names": _NAMES}  # noqa: RUF012

    def body(self, terms: Terms, roster: bytes) -> bytes:
        """Return what a signature under this list covers, beside the digest of the roster."""
        return terms.signed("survivors", roster, *(name.encode() for name in self.names))


@dataclass(frozen=True)
class Confirmation(_Message):
    """A party's signature under the one list of survivors that it accepts. Phase 4, from a party."""

    sender: str
    signature: bytes

    kinds = {"sender": _NAME, "signature": _bytes(1, _MOST_SIGNATURE_BYTES)}  # noqa: RUF012


@dataclass(frozen=True)
class Confirmations(_Message):
    """The signatures of a party's neighbours. Phase 5, to that party."""

    signatures: Mapping[str, bytes]

    kinds = {"signatures": _by_name(_bytes(1, _MOST_SIGNATURE_BYTES))}  # noqa: RUF012


@dataclass(frozen=True)
class Opened(_Message):
    """Shares of the seeds of survivors, and of the mask keys of the lost. Phase 5, from a party."""

    sender: str
    seeds: Mapping[str, bytes]
    keys: Mapping[str, bytes]

    kinds = {"sender": _NAME, "seeds": _by_name(_bytes(SHARE_BYTES)), "keys": _by_name(_bytes(SHARE_BYTES))}  # noqa: RUF012
