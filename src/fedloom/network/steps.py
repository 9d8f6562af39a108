"""Messages of split steps as frames: a head that says what comes, its bytes in pieces behind it; and who asks again."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from fedloom.base.errors import DataError, FedloomError
from fedloom.network.frames import Frame, text_in, whole_in
from fedloom.network.jobs import as_packet
from fedloom.network.link import Unreachable
from fedloom.network.pieces import pieces, sha256
from fedloom.split.journal import message_from, message_head
from fedloom.split.lockstep import Missed, NotYet
from fedloom.split.messages import Message

__all__ = ["answer_in", "answer_to", "in_frames", "patiently", "refusal_of"]

_log = logging.getLogger(__name__)
_PAUSE_S, _PATIENCE_S = 0.2, 60.0
_ANSWERS = {"FWD": ("BODY",), "GRAD": ("BACK",), "READ": ("TOLD", "GONE")}


def in_frames(message: Message, job: str = "") -> Iterator[Frame]:
    """Yield a message as frames."""
    data = message.packet.numpy().tobytes()
    head = {"kind": "step", "job": job, "digest": sha256(data), "size": len(data), **message_head(message)}
    parts = iter(pieces(data))
    yield Frame(head, next(parts, b""))
    for part in parts:
        yield Frame({"kind": "piece"}, part)


def refusal_of(error: FedloomError) -> Frame:
    """Return what a node is told in place of an answer: why there is none, and whether there may be one yet."""
    told = {"reason": str(error)[:4000]}
    if isinstance(error, Missed):
        return Frame({"kind": "missed", "step": error.step, **told})
    return Frame({"kind": "later" if isinstance(error, NotYet) else "refused", **told})


def answer_in(frames: Iterable[Frame], message: Message, where: str) -> Message:
    """Return the answer that frames hold; Unreachable where a server has no round open yet, DataError where none is."""
    head, data = dict[str, Any](), bytearray()
    for frame in frames:
        head = head or dict(frame.header)
        data += frame.body
    if head.get("kind") == "later":
        raise Unreachable(f"{where}: {str(head.get('reason', 'not now'))[:200]} It is tried again.")
    if head.get("kind") == "missed":
        raise Missed(message.where, whole_in(head, "step"))
    if head.get("kind") != "step":
        raise DataError(str(head.get("reason", "the server gave no answer"))[:400])
    return answer_to(message, head, data)


def answer_to(message: Message, head: Mapping[str, Any], data: bytes | bytearray) -> Message:
    """Return a server's answer to a message; DataError for another one's, or for bytes that are not those promised."""
    found = message_from(head, as_packet(data))
    if sha256(data) != text_in(head, "digest", longest=64):
        raise DataError(f"{message.where}: the answer's bytes are not those that were promised.")
    allowed = _ANSWERS.get(message.kind, (message.kind, "GONE"))
    heads = [message_head(one) | {"phase": "", "weight": "", "prompts": []} for one in (found, message)]
    if found.kind not in allowed or heads[0] != heads[1]:
        raise DataError(f"{message.where}: found {found.where} for an answer.")
    return found


def patiently(exchange: Callable[[Message], Message], message: Message) -> Message:
    """Return the answer to a message, which is sent again while the server is away; Unreachable after a minute."""
    end_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return exchange(message)
        except Unreachable as error:
            if time.monotonic() > end_s:
                raise
            _log.warning("%s: %s; it is sent again", message.where, error)
            time.sleep(_PAUSE_S)
