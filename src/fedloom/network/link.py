"""What a node asks of the way to its server, whatever carries it: gRPC (`channel.py`), or a relay (`relay_link.py`)."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from fedloom.base.errors import DataError, RunError
from fedloom.network.frames import Frame, text_in, whole_in
from fedloom.network.open_round import Verdict
from fedloom.split.messages import Message

__all__ = ["NodeLink", "Unreachable", "verdict_from"]


class Unreachable(RunError):
    """The server is not there; whoever calls may try again."""


class NodeLink(Protocol):
    """A node's connection to its server; what does not get through raises `Unreachable`."""

    where: str
    """Address of the other end, for messages."""

    def join(self, hello: Mapping[str, Any]) -> Iterator[Frame]:
        """Yield the frames that the server sends, for as long as the connection stands."""
        ...

    def fetch(self, digest: str, start: int) -> Iterator[bytes]:
        """Yield the bytes of a body from a place on."""
        ...

    def offer(self, header: Mapping[str, Any]) -> Verdict:
        """Return what the server says to a report's header."""
        ...

    def send(self, head: Mapping[str, Any], packet: bytes, start: int) -> Verdict:
        """Send a packet from a byte on under a header; return what the server says to the last of it."""
        ...

    def sum(self, header: Mapping[str, Any], body: bytes) -> Verdict:
        """Send a message of a secure sum."""
        ...

    def exchange(self, job: str, message: Message) -> Message:
        """Send a message of a split step, and return the server's answer to it; DataError where there is none."""
        ...

    def say(self, job: str, reason: str) -> None:
        """Tell the server why a job is not carried out now."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


def verdict_from(header: Mapping[str, Any]) -> Verdict:
    """Return what a server's answer says; DataError for anything else."""
    kind = text_in(header, "kind")
    if kind not in ("wanted", "taken", "closed", "refused"):
        raise DataError(f"the server answers '{kind[:80]}', which is no answer.")
    return Verdict(kind, whole_in(header, "start"), text_in(header, "reason", longest=4000))
