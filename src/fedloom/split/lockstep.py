"""The server of a split round whose clients are elsewhere: it waits for the messages of a batch, and answers each once.

A round goes step by step, and in each `in_flight` micro-batches at a time: FWD of all its clients, BODY to each; GRAD
of all, BACK to each; after the last one a step of the adapters. While one of two micro-batches is computed here,
messages of the other travel. A batch is computed when every client that is still in the round has sent its message, or
at the deadline without those that have not: they are out of this step, which goes on as if their rows had been zero
(`Body`), and may join at the next one. A client that has done all its steps sends its report and is waited for no more.

With a window a batch is what has come by the window's end, and the others of the same place make further ones; the step
is one for all of them nevertheless. Sums then differ in their last digits with who came with whom.

Exactly once (4.7 of the specification): what came is on the disk before it is computed, and the answers are before they
leave. The same message again gets the stored answer; another one for an answered step is refused. A client that was
started anew takes its round from the first step and meets its own answers; a server that was started anew computes the
round so far once more, batch by batch as they were, which gives the same adapters bit for bit. All of it goes when the
round ends, for which the client's report stands as COMMIT.

Deviations: credits are the micro-batches in flight: no more graphs of a client live at once, none in recompute mode.
Gradients go before states by the order of places, not by two queues. A client that joins late takes fewer steps than
its peers; its report counts as theirs do.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from fedloom.base.errors import DataError
from fedloom.base.files import disk_errors
from fedloom.split.body import Body
from fedloom.split.journal import Place, append, batches, same_message, stored, write_answer
from fedloom.split.messages import Message, Tally

__all__ = ["Lockstep", "Missed", "NotYet"]


class NotYet(DataError):
    """The server cannot answer now and will, when it was started anew: whoever asks may ask again."""


class Missed(DataError):
    """A step was made without the client, which may join at another."""

    def __init__(self, where: str, step: int) -> None:
        super().__init__(f"{where}: the step was made without this client, which may join at step {step}.")
        self.step = step


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
    in_flight: int = 1
    """Micro-batches of a step that are under way at a time."""
    window_s: float = 0.0
    """Seconds after which a batch is computed of what has come; 0: it waits for all."""
    deadline_s: float = 0.0
    """Seconds that a batch waits for the last of its messages, after the first; 0: for ever."""
    lost: Callable[[str, str], None] = lambda client, reason: None
    """Told who is out of the round, and why."""
    joined: Callable[[str], None] = lambda client: None
    """Told who is in it again."""
    broken: Callable[[str], None] = lambda reason: None
    """Told why no more steps can be made."""
    noted: Callable[[Sequence[Message], float, float], None] = lambda messages, waited_s, computed_s: None
    """Told of each batch, its seconds from the first message to the last, and those that it took."""
    repeated: Callable[[], None] = lambda: None
    """Told of each message that had been answered before."""
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self._turn, self._over = threading.Condition(), False
        self._place, self._in = Place(0, 0, False), set(self.clients)
        self._refused, self._joining = set[str](), dict[str, int]()
        self._done = set[str]()
        """Whose message of the place under way was computed."""
        self._came: dict[Place, dict[str, tuple[Message, Future[Message]]]] = {}
        self._computed: dict[str, tuple[Message, Future[Message]]] = {}
        """The batch under way, of which an answer is asked for again by whoever has lost its connection."""
        self._first_s = dict[Place, float]()
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for place, messages in batches(self._log):
            while self._place != place:
                self._move_on()
            self._out(self._compute(place, messages))
            self._done |= {one.client for one in messages}
        if self._done >= self._in or (self._done and not self.window_s):
            self._move_on()
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()

    @property
    def _log(self) -> Path:
        return self.folder / "came.bin"

    # ------------------------------------------------------------------------------------------------ what clients do

    def submit(self, message: Message) -> "Future[Message]":
        """Take a client's message, and promise its answer.

        Raises DataError for one that is not of this round's course, Missed for one of a step that was made.
        """
        place, client = Place.of(message), message.client
        with self._turn:
            if client not in self.clients or message.micro >= self.n_micro:
                raise DataError(f"{message.where}: is of no client or micro-batch of this round.")
            kept = self._answer_file(place, client)
            if kept.is_file():
                self.repeated()
                return _done(stored(kept, message))
            if client in self._refused:
                raise DataError(f"{message.where}: this client is out of the round.")
            if self._over:
                raise NotYet(f"{message.where}: the server makes no steps now.")
            if self._is_past(place, client):
                raise Missed(message.where, self._joins_at(client, place.step))
            if not self._is_near(place, client):
                raise DataError(f"{message.where}: is ahead of the round, which is at step {self._place.step}.")
            return self._promised(place, message)

    def leave(self, client: str) -> None:
        """Wait for a client no more: it has reported, or is refused."""
        with self._turn:
            self._out([client])
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

    def _promised(self, place: Place, message: Message) -> "Future[Message]":
        came = self._came.setdefault(place, {})
        before = came.get(message.client) or (self._computed.get(message.client) if place == self._place else None)
        if before is not None and not same_message(before[0], message):
            raise DataError(f"{message.where}: another message than the one that came before.")
        self._first_s.setdefault(place, time.monotonic())
        future = before[1] if before else Future[Message]()
        if before is None:
            future.set_running_or_notify_cancel()  # who hangs up while it waits takes the answer from nobody
            came[message.client] = message, future
            self._turn.notify_all()
        return future

    def _is_past(self, place: Place, client: str) -> bool:
        late = client not in self._in and place.step < self._joining.get(client, place.step + 1)
        return late or place.rank(self.in_flight) < self._place.rank(self.in_flight)

    def _is_near(self, place: Place, client: str) -> bool:
        """Return whether a client may be at a place by now, while the round is at another."""
        if client not in self._in:
            return place.step == self._joining[client] and not place.back and place.micro < self.in_flight
        ahead = self.in_flight + bool(self.window_s)
        return place in self._place.course(self.n_micro, self.in_flight, ahead)

    def _joins_at(self, client: str, missed: int) -> int:
        """Return the first step behind a missed one that a client has had a part in, or may have."""
        number = f"-{self.clients.index(client)}.answer"
        made = [int(path.name[:6]) for path in self.folder.glob(f"*{number}")]
        again = [step for step in made if step > missed]
        if again or client in self._in:
            return min([*again, self._place.step + 1])
        return self._joining.setdefault(client, self._place.step + 1)

    def _out(self, clients: Iterable[str]) -> None:
        """Let clients be out of the round for good."""
        self._refused |= set(clients)
        self._in -= set(clients)

    # --------------------------------------------------------------------------------------------------- batch by batch

    def _work(self) -> None:
        while True:
            with self._turn:
                while not self._over and not self._is_due():
                    self._turn.wait(timeout=self._left_s())
                if self._over:
                    for came in self._came.values():
                        _fail([future for _, future in came.values()], "the round is over.")
                    return
                place, came = self._place, self._came.pop(self._place, {})
                waited_s = time.monotonic() - self._first_s.get(place, time.monotonic())
                late = [client for client in self._waiting if client not in came] if not self._is_early() else []
                self._in -= set(late)
                odd = [came.pop(client)[1] for client in [*came] if client not in self._in]
                _fail(odd, "the step is made without this client.")
                self._computed = came
            for client in late:
                self.lost(client, f"sent nothing for step {place.step} within {self.deadline_s:g} s")
            if came:
                self._batch(place, came, waited_s)
            else:
                self._through([])

    def _batch(self, place: Place, came: "Mapping[str, tuple[Message, Future[Message]]]", waited_s: float) -> None:
        """Write a batch down, compute it, and keep what was promised."""
        messages = [came[client][0] for client in self.clients if client in came]
        start_s = time.monotonic()
        try:
            append(self._log, place, messages)
            refused = self._compute(place, messages)
            self._through(came, refused)  # before anybody hears, who may send the next message at once
            for message in messages:
                client, (_, future) = message.client, came[message.client]
                if client in refused:
                    self.lost(client, refused[client])
                    _fail([future], refused[client])
                else:
                    future.set_result(stored(self._answer_file(place, client), message))
            self.noted(messages, waited_s, time.monotonic() - start_s)
        finally:
            unkept = [future for _, future in came.values() if not future.done()]
            if unkept:  # whoever waits has to hear of it, and asks again
                self._over = True
                self.broken(f"the step at {place.name} could not be made; see the log, then `fedloom resume` goes on.")
                _fail(unkept, "the server could not make the step.", NotYet)

    def _through(self, done: Iterable[str], refused: Iterable[str] = ()) -> None:
        """Take note of whose message was computed and of who is out; go on where nobody is waited for."""
        joined: list[str] = []
        with self._turn:
            self._out(refused)
            self._computed = {}
            self._done |= set(done)
            if self._done >= self._in:
                joined = self._move_on()
        for client in joined:  # whoever is told may hold a lock of its own, and ask something here
            self.joined(client)

    @property
    def _waiting(self) -> list[str]:
        return [client for client in self.clients if client in self._in and client not in self._done]

    def _is_early(self) -> bool:
        """Return whether those that have not sent anything are waited for still."""
        return self._deadline_s() > time.monotonic()

    def _is_due(self) -> bool:
        if self._place not in self._first_s:
            return not self._in and bool(self._joining)  # nobody is left of this step
        came = self._came.get(self._place, {})
        whole = set(self._waiting) <= came.keys()
        return whole or not self._is_early() or (bool(came) and self._window_end_s() <= time.monotonic())

    def _deadline_s(self) -> float:
        return self._first_s.get(self._place, float("inf")) + (self.deadline_s or float("inf"))

    def _window_end_s(self) -> float:
        # A window of what is still unanswered; gradients of a batch whose graph is kept come as one.
        splits = self.window_s and (not self._place.back or self.body.recomputes)
        return self._first_s[self._place] + self.window_s if splits else float("inf")

    def _left_s(self) -> float | None:
        if self._place not in self._first_s:
            return None
        came = bool(self._came.get(self._place))
        end_s = min(self._deadline_s(), self._window_end_s() if came else float("inf"))
        return None if end_s == float("inf") else max(0.0, end_s - time.monotonic())

    def _move_on(self) -> list[str]:
        """Go to the next place, and before a new step move the adapters; return who joins with it."""
        before, self._place = self._place, self._place.following(self.n_micro, self.in_flight)
        self._done = set()
        self._first_s.pop(before, None)
        if self._place.step == before.step:
            return []
        self.body.step(self.lr)
        joined = [one for one, step in self._joining.items() if step <= self._place.step and one not in self._refused]
        self._joining = {one: step for one, step in self._joining.items() if one not in joined}
        self._in |= set(joined)
        return joined

    def _compute(self, place: Place, messages: Sequence[Message]) -> Mapping[str, str]:
        """Compute a batch and write down its answers; return why any client's message was refused."""
        seeds = {one.client: (*self.seed, one.client, place.step, place.micro, "dropout") for one in messages}
        if place.back:
            more = bool(self.window_s) and self.body.recomputes  # else gradients of a place come in one batch
            answers, refused, _ = self.body.backward(messages, seeds, place.micro, last=not more)
        else:
            answers, refused = self.body.forward(messages, seeds, {}, place.micro)
        self.tally.add([*messages, *answers])
        asked = {one.client: one for one in messages}
        for one in answers:
            write_answer(self._answer_file(place, one.client), asked[one.client], one)
        return refused

    def _answer_file(self, place: Place, client: str) -> Path:
        return self.folder / f"{place.name}-{self.clients.index(client)}.answer"


def _done(message: Message) -> "Future[Message]":
    future = Future[Message]()
    future.set_result(message)
    return future


def _fail(futures: "Sequence[Future[Message]]", reason: str, kind: type[DataError] = DataError) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(kind(reason))
