"""What a server may make of an answer: it ends in time, has a size, and comes from where it was asked.

The client's own limit of time is one of each read, so that a server that sends a byte now and then is never late.
"""

import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any

from fedloom.base.shown import shown

__all__ = ["MOST_BYTES", "limiting", "not_taken"]

MOST_BYTES = 2**24
"""Bytes of an answer: a hundred times what the longest of any model takes."""


@cache
def not_taken() -> type[Exception]:
    """Return the error for an answer that is not taken; the client hands on its own kind without trying again."""
    from openai import OpenAIError

    class NotTaken(OpenAIError):
        """Says what the server did."""

    return NotTaken


def limiting(timeout_s: float) -> Callable[[Any], None]:
    """Return a hook for the client's responses that refuses redirects and bounds what is read of a body."""

    def hook(response: Any) -> None:
        if 300 <= response.status_code < 400:
            there = shown(response.headers.get("location", "nowhere"))[:200]
            raise not_taken()(f"sends requests on to {there}; name that address as url if it is to be trusted")
        if (packed := response.headers.get("content-encoding", "identity")) != "identity":
            raise not_taken()(f"packs its answers ({shown(packed)[:40]}), which nobody asked for; look at its settings")
        http = import_module(type(response).__module__.partition(".")[0])
        response.stream = _bounded(http)(response.stream, timeout_s)

    return hook


@cache
def _bounded(http: Any) -> type[Any]:
    """Return the bounded stream of a library of HTTP, which goes by its own class of streams."""

    class Bounded(http.SyncByteStream):
        def __init__(self, stream: Any, timeout_s: float) -> None:
            self._stream, self._timeout_s = stream, timeout_s

        def __iter__(self) -> Iterator[bytes]:
            end_s, size = time.monotonic() + self._timeout_s, 0
            for part in self._stream:
                size += len(part)
                if size > MOST_BYTES:
                    raise not_taken()(f"sends an answer of more than {MOST_BYTES / 2**20:.0f} MiB; look at its log")
                if time.monotonic() > end_s:
                    raise http.ReadTimeout(f"not at its end after {self._timeout_s:g} s")
                yield part

        def close(self) -> None:
            self._stream.close()

    return Bounded
