"""What a relay carries between a node and its server: frames in an envelope that its sender has signed.

    4 bytes   "FLE1"
    2 bytes   length of the signature
    signature of all that follows
    the head, and then frames, each behind the 4 bytes of its length

The head is a frame without a body. It names its sender by a certificate, and the session; an answer has the hash of the
call that it answers. So a relay can hold an envelope back, and it can read it: it can change, invent and send
twice none. Lengths are big-endian.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedloom.base.errors import DataError
from fedloom.network.frames import Frame, text_in

__all__ = ["Envelope", "digest_of", "sealed"]

_MAGIC = b"FLE1"
_LONGEST = 16_000


def sealed(header: Mapping[str, Any], frames: Sequence[Frame], sign: Callable[[bytes], bytes]) -> bytes:
    """Return an envelope of frames as bytes, signed."""
    said = b"".join(_counted(frame.encoded()) for frame in (Frame(header), *frames))
    signature = sign(_MAGIC + said)
    return b"".join((_MAGIC, len(signature).to_bytes(2, "big"), signature, said))


def digest_of(data: bytes) -> str:
    """Return what an answer names the envelope by that it answers."""
    return hashlib.sha256(data).hexdigest()


def _counted(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@dataclass(frozen=True)
class Envelope:
    """An envelope whose head was read, before its signature is checked; the frames are read after that."""

    header: Mapping[str, Any]
    certificate: str
    signature: bytes
    said: bytes
    """What the signature is of."""
    _rest: bytes

    @classmethod
    def read(cls, data: bytes) -> "Envelope":
        """Return the envelope that bytes stand for; DataError for anything else."""
        signed = int.from_bytes(data[4:6], "big")
        if data[:4] != _MAGIC or len(data) < 10 + signed:
            raise DataError(f"envelope: {len(data)} bytes that are no envelope of this protocol.")
        signature, said = data[6 : 6 + signed], data[6 + signed :]
        size = int.from_bytes(said[:4], "big")
        if size > _LONGEST or len(said) < 4 + size:
            raise DataError(f"envelope: a head of {size} bytes, allowed are {min(_LONGEST, len(said))}.")
        header = Frame.decoded(said[4 : 4 + size]).header
        return cls(header, text_in(header, "certificate", longest=8000), signature, _MAGIC + said, said[4 + size :])

    def text(self, key: str) -> str:
        """Return a text of the head; DataError for anything else."""
        return text_in(self.header, key, longest=80)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames; DataError where the bytes are none."""
        rest = memoryview(self._rest)
        while rest:
            size = int.from_bytes(rest[:4], "big")
            if len(rest) < 4 + size:
                raise DataError(f"envelope: a frame of {size} bytes is promised, {len(rest) - 4} are left.")
            yield Frame.decoded(bytes(rest[4 : 4 + size]))
            rest = rest[4 + size :]
