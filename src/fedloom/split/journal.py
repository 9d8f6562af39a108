"""What the server of a split round has on disk: what came, batch by batch, and each answer beside what it is one to.

A batch is written down before it is computed, an answer before it leaves. Whoever is started anew reads the batches and
computes them once more; a batch that a kill has torn was never computed, and is cut off.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from fedloom.base.errors import DataError, FedloomError, RunError
from fedloom.base.files import disk_errors, sync
from fedloom.split.messages import Kind, Message

__all__ = ["Place", "append", "batches", "message_from", "message_head", "same_message", "stored", "write_answer"]

_HEAD_BYTES = 8


@dataclass(frozen=True)
class Place:
    """Where in a round a batch stands."""

    step: int
    micro: int
    back: bool
    """Whether it is of gradients: GRAD and BACK, after FWD and BODY."""

    @classmethod
    def of(cls, message: Message) -> "Place":
        """Return where a message from a client belongs."""
        return cls(message.step, message.micro, message.kind == "GRAD")

    def following(self, n_micro: int, in_flight: int = 1) -> "Place":
        """Return the place of the next batch, of steps of so many micro-batches, so many of which are under way.

        >>> [str(place) for place in Place(0, 0, False).course(3, 2, 6)]
        ['0.0 body', '0.1 body', '0.0 back', '0.1 back', '0.2 body', '0.2 back']
        """
        first = self.micro - self.micro % in_flight
        last = min(first + in_flight, n_micro) - 1
        if self.micro < last:
            return Place(self.step, self.micro + 1, self.back)
        if not self.back:
            return Place(self.step, first, True)
        over = last + 1 == n_micro
        return Place(self.step + over, 0 if over else last + 1, False)

    def course(self, n_micro: int, in_flight: int, count: int) -> Iterator["Place"]:
        """Yield this place and those behind it, so many in all."""
        place = self
        for _ in range(count):
            yield place
            place = place.following(n_micro, in_flight)

    def rank(self, in_flight: int) -> tuple[int, int, bool, int]:
        """Return what orders places by when they are computed."""
        return self.step, self.micro // in_flight, self.back, self.micro

    def __str__(self) -> str:
        return f"{self.step}.{self.micro} {'back' if self.back else 'body'}"

    @property
    def name(self) -> str:
        """A file's name for it."""
        return f"{self.step:06d}-{self.micro:03d}-{'back' if self.back else 'body'}"


def same_message(one: Message, other: Message) -> bool:
    """Return whether two messages say the same."""
    heads = message_head(one) == message_head(other)
    return heads and torch.equal(one.packet, other.packet)


# ----------------------------------------------------------------------------------------------- messages as bytes


def message_head(message: Message) -> dict[str, Any]:
    """Return all of a message but its packet, as JSON values."""
    return {
        "phase": message.kind,
        "client": message.client,
        "step": message.step,
        "micro": message.micro,
        "lengths": list(message.lengths),
        "weight": float(message.weight).hex(),
        **({"prompts": list(message.prompts)} if message.prompts else {}),
        **({"session": message.session} if message.session else {}),
    }


def message_from(head: Mapping[str, Any], packet: Tensor) -> Message:
    """Return the message of a head and a packet; DataError for anything else."""
    try:
        kind, lengths, weight = head["phase"], head["lengths"], float.fromhex(head["weight"])
        prompts = head.get("prompts", [])
        whole = [head["step"], head["micro"], *lengths, *prompts]
        named = isinstance(head["client"], str) and isinstance(head.get("session", ""), str)
        fits = kind in get_args(Kind) and named and len(prompts) <= len(lengths) <= 1 << 16
        if not fits or not all(type(one) is int and 0 <= one < 1 << 31 for one in whole):
            raise ValueError("numbers or kinds that are none")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"split: found a message that is none ({error}).") from error
    place = kind, head["client"], head["step"], head["micro"]
    return Message(*place, packet, tuple(lengths), weight, tuple(prompts), head.get("session", ""))


def _encoded(message: Message) -> bytes:
    head = json.dumps(message_head(message)).encode()
    packet = message.packet.numpy().tobytes()
    return len(head).to_bytes(_HEAD_BYTES, "big") + len(packet).to_bytes(_HEAD_BYTES, "big") + head + packet


def _decoded(data: bytes, start: int) -> tuple[Message, int]:
    """Return the message at a place, and where the next one begins; ValueError where it is torn."""
    at = start + 2 * _HEAD_BYTES
    head_bytes = int.from_bytes(data[start : start + _HEAD_BYTES], "big")
    end = at + head_bytes + int.from_bytes(data[start + _HEAD_BYTES : at], "big")
    if len(data) < end or end <= at:
        raise ValueError("it is torn")
    packet = bytearray(data[at + head_bytes : end])
    rows = torch.frombuffer(packet, dtype=torch.uint8) if packet else torch.zeros(0, dtype=torch.uint8)
    return message_from(json.loads(data[at : at + head_bytes]), rows), end


def append(log: Path, place: Place, messages: Sequence[Message]) -> None:
    """Write a batch down, and wait until the disk has it."""
    parts = b"".join(map(_encoded, messages))
    head = json.dumps({"place": [place.step, place.micro, place.back], "bytes": len(parts)}).encode()
    with disk_errors(log), log.open("ab") as file:
        file.write(len(head).to_bytes(_HEAD_BYTES, "big") + head + parts)
        sync(file)


def batches(log: Path) -> Iterator[tuple[Place, list[Message]]]:
    """Yield the batches of a log; a last one that is torn was never computed, and is cut off."""
    if not log.is_file():
        return
    with log.open("rb") as file:
        whole = 0
        while prefix := file.read(_HEAD_BYTES):
            try:
                head = json.loads(file.read(int.from_bytes(prefix, "big")))
                parts = file.read(head["bytes"])
                if len(parts) < head["bytes"]:
                    break
                yield Place(*head["place"]), list(_all(parts))
            except (ValueError, KeyError, TypeError):
                break
            whole = file.tell()
    with log.open("r+b") as file:
        file.truncate(whole)


def _all(parts: bytes) -> Iterator[Message]:
    at = 0
    while at < len(parts):
        message, at = _decoded(parts, at)
        yield message


def write_answer(path: Path, asked: Message, answer: Message) -> None:
    """Write an answer down beside what was asked, under a temporary name first."""
    new = path.with_suffix(".new")
    with disk_errors(path):
        with new.open("wb") as file:
            file.write(_encoded(asked) + _encoded(answer))
            sync(file)
        new.replace(path)


def stored(path: Path, message: Message) -> Message:
    """Return a stored answer to this very message; DataError to any other."""
    data = path.read_bytes()
    try:
        asked, at = _decoded(data, 0)
        answer, _ = _decoded(data, at)
    except (ValueError, FedloomError) as error:
        raise RunError(f"{path}: is not what this server wrote ({error}); restore it from a copy.") from error
    if not same_message(asked, message):
        raise DataError(f"{message.where}: another message was answered already; a step is made once.")
    return answer
