"""What travels: frames of a header, which is a JSON table, and bytes behind it. Nothing in a frame is ever executed.

    4 bytes   "FLM1"
    4 bytes   length of the header, big-endian, at most 64 KiB
    header    a JSON object, UTF-8
    bytes     at most 1 MiB

Real numbers in headers are hexadecimal (`float.hex`), so that they arrive bit for bit.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from fedloom.base.errors import DataError

__all__ = ["CHUNK", "PROTOCOL", "Frame", "number_from", "number_to", "text_in", "whole_in"]

PROTOCOL = 1
CHUNK = 1 << 20
"""Bytes behind a header at most."""
_MAGIC = b"FLM1"
_HEAD = len(_MAGIC) + 4
_LONGEST = 64 << 10


@dataclass(frozen=True)
class Frame:
    """One message."""

    header: Mapping[str, Any] = field(default_factory=dict[str, Any])
    body: bytes = b""

    def encoded(self) -> bytes:
        """Return the frame as bytes; DataError where it is longer than frames may be."""
        text = json.dumps(self.header, separators=(",", ":"), allow_nan=False).encode()
        if len(text) > _LONGEST or len(self.body) > CHUNK:
            raise DataError(
                f"frame: found a header of {len(text)} and a body of {len(self.body)} bytes, allowed are {_LONGEST} "
                f"and {CHUNK}."
            )
        return b"".join((_MAGIC, len(text).to_bytes(4, "big"), text, self.body))

    @classmethod
    def decoded(cls, data: bytes) -> "Frame":
        """Return the frame that bytes stand for; DataError for anything else, before anything is made of it."""
        size = int.from_bytes(data[len(_MAGIC) : _HEAD], "big")
        if len(data) < _HEAD or data[: len(_MAGIC)] != _MAGIC or size > _LONGEST or len(data) < _HEAD + size:
            raise DataError(f"frame: {len(data)} bytes that are no frame of this protocol.")
        if len(data) - _HEAD - size > CHUNK:
            raise DataError(f"frame: a body of {len(data) - _HEAD - size} bytes, allowed are {CHUNK}.")
        try:
            header = json.loads(data[_HEAD : _HEAD + size].decode(), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise DataError(f"frame: its header is no JSON ({error}).") from error
        if not isinstance(header, dict):
            raise DataError("frame: its header is no table.")
        return cls(cast("dict[str, Any]", header), data[_HEAD + size :])


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def number_to(value: float) -> str:
    """Return a number as a header holds it.

    >>> number_to(0.5), number_from({"lr": "0x1.0p-1"}, "lr")
    ('0x1.0000000000000p-1', 0.5)
    """
    return value.hex()


def number_from(header: Mapping[str, Any], key: str) -> float:
    """Return a finite number of a header; DataError for anything else."""
    try:
        found = float.fromhex(text_in(header, key, longest=64))
    except (ValueError, OverflowError) as error:
        raise DataError(f"{key}: found no hexadecimal number.") from error
    if not math.isfinite(found):
        raise DataError(f"{key}: found {found}, allowed is a finite number.")
    return found


def text_in(header: Mapping[str, Any], key: str, *, longest: int = 256) -> str:
    """Return a text of a header; DataError for anything else, or a longer one."""
    found = header.get(key)
    if not isinstance(found, str) or len(found) > longest:
        raise DataError(f"{key}: found {type(found).__name__}, allowed is a text of up to {longest} characters.")
    return found


def whole_in(header: Mapping[str, Any], key: str, *, low: int = 0, high: int = 2**53) -> int:
    """Return a whole number of a header; DataError for anything else, or one out of range."""
    found = header.get(key)
    if not isinstance(found, int) or isinstance(found, bool) or not low <= found <= high:
        shown = found if isinstance(found, int) and abs(found) < 2**64 else type(found).__name__
        raise DataError(f"{key}: found {shown}, allowed is a whole number from {low} to {high}.")
    return found
