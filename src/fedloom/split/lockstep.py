"""The server of a split round whose clients are elsewhere: it waits for the messages of a batch, and answers each once.

A round goes step by step, and in each micro-batch by micro-batch: FWD of all its clients, BODY to each; GRAD of all,
BACK to each; after the last one a step of the adapters. A batch is computed when every client that is still in the
round has sent its message, or at the deadline without those that have not: they are out of this round, which goes on as
if their rows had been zero (`Body`). A client that has done all its steps sends its report and is waited for no more.

Exactly once (4.7 of the specification): what came is on the disk before it is computed, and the answers are before they
leave. The same message again gets the stored answer; another one for an answered step is refused. A client that was
started anew takes its round from the first step and meets its own answers; a server that was started anew computes the
round so far once more, batch by batch as they were, which gives the same adapters bit for bit. All of it goes when the
round ends, for which the client's report stands as COMMIT.

Deviations: a batch is the clients of one step, without a window in time, length buckets or credits: no more graphs than
one micro-batch of each client live at once, and a slow client delays the others up to the deadline. A client that was
left out joins in the next round, not in the next step: its optimiser would have missed a step that its peers took.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from fedloom.base.errors import DataError, FedloomError, RunError
from fedloom.base.files import disk_errors, sync
from fedloom.split.body import Body
from fedloom.split.messages import Kind, Message, Tally

__all__ = ["Lockstep", "NotYet", "Place", "message_from", "message_head"]

_HEAD_BYTES = 8


class NotYet(DataError):
    """The server cannot answer now and will, when it was started anew: whoever asks may ask again."""


@dataclass(frozen=True, order=True)
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

    def following(self, n_micro: int) -> "Place":
        """Return the place of the next batch, of steps of so many micro-batches."""
        if not self.back:
            return Place(self.step, self.micro, True)
        last = self.micro + 1 == n_micro
        return Place(self.step + last, 0 if last else self.micro + 1, False)

    @property
    def name(self) -> str:
        """A file's name for it."""
        return f"{self.step:06d}-{self.micro:03d}-{'back' if self.back else 'body'}"


@dataclass
class Lockstep:
    """One round; `submit` may be called from any thread."""

    body: Body
    clients: tuple[str, ...]
    """Who is in the round, in order."""
    seed: tuple[str | int, ...]
    """What names the run's draws of dropout, before the client and the step."""
    n_micro: int
    lr: float
    folder: Path
    """For what came and was answered; empty for a new round, or as a server that was killed has left it."""
    most_bytes: int = 1 << 30
    """Of a message: what so many examples of the longest length take."""
    deadline_s: float = 0.0
    """Seconds that a batch waits for the last of its messages, after the first; 0: for ever."""
    lost: Callable[[str, str], None] = lambda client, reason: None
    """Told who is out of the round, and why."""
    broken: Callable[[str], None] = lambda reason: None
    """Told why no more steps can be made."""
    noted: Callable[[Sequence[Message], float, float], None] = lambda messages, waited_s, computed_s: None
    """Told of each batch, its seconds from the first message to the last, and those that it took."""
    repeated: Callable[[], None] = lambda: None
    """Told of each message that had been answered before."""
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self._turn, self._over = threading.Condition(), False
        self._place = Place(0, 0, False)
        self._in = dict.fromkeys(self.clients)
        self._came: dict[str, tuple[Message, Future[Message]]] = {}
        self._first_s = 0.0
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for place, messages in _read(self._log):
            self._compute(place, messages)
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()

    @property
    def _log(self) -> Path:
        return self.folder / "came.bin"

    # ------------------------------------------------------------------------------------------------ what clients do

    def submit(self, message: Message) -> "Future[Message]":
        """Take a client's message, and promise its answer; DataError for one that is not of this round's course."""
        place, future = Place.of(message), Future[Message]()
        future.set_running_or_notify_cancel()  # who hangs up while it waits takes the answer from nobody
        with self._turn:
            if message.client not in self.clients or message.micro >= self.n_micro:
                raise DataError(f"{message.where}: is of no client or micro-batch of this round.")
            stored = self._answer_file(place, message.client)
            if stored.is_file():
                future.set_result(_stored(stored, message))
                self.repeated()
                return future
            if message.client not in self._in or place < self._place:
                raise DataError(f"{message.where}: the step was made without this client; it joins in the next round.")
            if self._over:
                raise NotYet(f"{message.where}: the server makes no steps now.")
            if place > self._place:
                raise DataError(f"{message.where}: is ahead of the round, which is at step {self._place.step}.")
            before = self._came.get(message.client)
            if before is not None and not _same(before[0], message):
                raise DataError(f"{message.where}: another message than the one that came before.")
            self._first_s = self._first_s if self._came else time.monotonic()
            self._came[message.client] = message, before[1] if before else future
            self._turn.notify_all()
            return self._came[message.client][1]

    def leave(self, client: str) -> None:
        """Wait for a client no more: it has reported, or is refused."""
        with self._turn:
            self._in.pop(client, None)
            self._turn.notify_all()

    def close(self) -> None:
        """End the round, and forget what came."""
        with self._turn:
            self._over = True
            self._turn.notify_all()
        self._worker.join()
        for path in self.folder.glob("*.*"):
            path.unlink()
        self.folder.rmdir()

    # --------------------------------------------------------------------------------------------------- batch by batch

    def _work(self) -> None:
        while True:
            with self._turn:
                while not self._over and not self._is_due():
                    self._turn.wait(timeout=self._left_s())
                if self._over:
                    _fail([future for _, future in self._came.values()], "the round is over.")
                    return
                came, self._came = self._came, {}
                late = [client for client in self._in if client not in came]
                for client in late:
                    del self._in[client]
                place, waited_s = self._place, time.monotonic() - self._first_s
            for client in late:
                self.lost(client, f"sent nothing for step {place.step} within {self.deadline_s:g} s")
            messages = [came[client][0] for client in self.clients if client in came]
            start_s = time.monotonic()
            try:
                self._answer(place, messages, {client: future for client, (_, future) in came.items()})
                self.noted(messages, waited_s, time.monotonic() - start_s)
            finally:
                unkept = [future for _, future in came.values() if not future.done()]
                if unkept:  # whoever waits has to hear of it, and asks again
                    self._over = True
                    self.broken(
                        f"the step at {place.name} could not be made; see the log, then `fedloom resume` goes on."
                    )
                    _fail(unkept, "the server could not make the step.", NotYet)

    def _answer(self, place: Place, messages: Sequence[Message], futures: "Mapping[str, Future[Message]]") -> None:
        """Write a batch down, compute it, and keep what was promised."""
        _append(self._log, place, messages)
        refused = self._compute(place, messages)
        for message in messages:
            client = message.client
            if client in refused:
                self.leave(client)
                self.lost(client, refused[client])
                _fail([futures[client]], refused[client])
            else:
                futures[client].set_result(_stored(self._answer_file(place, client), message))

    def _is_due(self) -> bool:
        return bool(self._came) and (self._in.keys() <= self._came.keys() or self._left_s() == 0)

    def _left_s(self) -> float | None:
        if not self.deadline_s or not self._came:
            return None
        return max(0.0, self._first_s + self.deadline_s - time.monotonic())

    def _compute(self, place: Place, messages: Sequence[Message]) -> Mapping[str, str]:
        """Compute a batch, write down its answers, and move on; return why any client's message was refused."""
        seeds = {one.client: (*self.seed, one.client, place.step, place.micro, "dropout") for one in messages}
        if place.back:
            answers, refused, _ = self.body.backward(messages, seeds, place.micro)
            if place.micro + 1 == self.n_micro:
                self.body.step(self.lr)
        else:
            answers, refused = self.body.forward(messages, seeds, {}, place.micro)
        self.tally.add([*messages, *answers])
        asked = {one.client: one for one in messages}
        for one in answers:
            _write(self._answer_file(place, one.client), asked[one.client], one)
        with self._turn:
            self._place = place.following(self.n_micro)
        return refused

    def _answer_file(self, place: Place, client: str) -> Path:
        return self.folder / f"{place.name}-{self.clients.index(client)}.answer"


def _fail(futures: Sequence["Future[Message]"], reason: str, kind: type[DataError] = DataError) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(kind(reason))


def _same(one: Message, other: Message) -> bool:
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
    }


def message_from(head: Mapping[str, Any], packet: Tensor) -> Message:
    """Return the message of a head and a packet; DataError for anything else."""
    try:
        kind, lengths, weight = head["phase"], head["lengths"], float.fromhex(head["weight"])
        whole = [head["step"], head["micro"], *lengths]
        fits = kind in get_args(Kind) and isinstance(head["client"], str) and len(lengths) <= 1 << 16
        if not fits or not all(type(one) is int and 0 <= one < 1 << 31 for one in whole):
            raise ValueError("numbers or kinds that are none")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"split: found a message that is none ({error}).") from error
    return Message(kind, head["client"], head["step"], head["micro"], packet, tuple(lengths), weight)


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


def _append(log: Path, place: Place, messages: Sequence[Message]) -> None:
    """Write a batch down, and wait until the disk has it."""
    parts = b"".join(map(_encoded, messages))
    head = json.dumps({"place": [place.step, place.micro, place.back], "bytes": len(parts)}).encode()
    with disk_errors(log), log.open("ab") as file:
        file.write(len(head).to_bytes(_HEAD_BYTES, "big") + head + parts)
        sync(file)


def _read(log: Path) -> Iterator[tuple[Place, list[Message]]]:
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


def _write(path: Path, asked: Message, answer: Message) -> None:
    """Write an answer down beside what was asked, under a temporary name first."""
    new = path.with_suffix(".new")
    with disk_errors(path):
        with new.open("wb") as file:
            file.write(_encoded(asked) + _encoded(answer))
            sync(file)
        new.replace(path)


def _stored(path: Path, message: Message) -> Message:
    """Return a stored answer to this very message; DataError to any other."""
    data = path.read_bytes()
    try:
        asked, at = _decoded(data, 0)
        answer, _ = _decoded(data, at)
    except (ValueError, FedloomError) as error:
        raise RunError(f"{path}: is not what this server wrote ({error}); restore it from a copy.") from error
    if not _same(asked, message):
        raise DataError(f"{message.where}: another message was answered already; a step is made once.")
    return answer
