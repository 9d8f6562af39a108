"""The server's side of answers that clients have written: sessions, in each of which one text is read (4.8).

A session's keys and values lie here, in memory alone, for as many tokens as it asked for when it was opened. Of its
messages, which count up, the last one is answered again as it was, whoever lost the answer; any other that was answered
before is refused. A session that is not here (the server was started anew, or it was silent for too long) is GONE: its
client then opens another and sends once more what it had sent, so that reading goes on at the place where it was.

Deviations: the specification's failover starts from Petals, whose replacement of a lost session begins at place 0 while
its history is inherited (issue 587); here READ says how many tokens lie before its own, and a session that has read
another number refuses it. Sessions are answered one after another, each by itself.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from fedloom.base.errors import DataError
from fedloom.base.tree import Tree
from fedloom.split.body import Middle
from fedloom.split.journal import same_message
from fedloom.split.lockstep import NotYet
from fedloom.split.messages import Message
from fedloom.split.reading import Reading
from fedloom.split.wire import Wire

__all__ = ["Sessions"]

_NOTHING = torch.zeros(0, dtype=torch.uint8)


@dataclass
class _Session:
    asked: Message
    """The last message."""
    answer: Message
    reading: Reading
    room: int
    heard_s: float


class Sessions:
    """All sessions of a server; `answer` may be called from any thread."""

    def __init__(
        self,
        middle: Middle,
        params: Callable[[str], Tree],
        wire: Wire,
        *,
        most_tokens: int = 1 << 16,
        idle_s: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the middle for clients of one cut, each client's adapter of it, and what sessions may take together.

        `most_tokens` bounds the room of all sessions, `idle_s` the seconds after which a silent one is forgotten.
        """
        (self._part,) = middle.parts
        self._params, self._wire = params, wire
        self._most, self._idle_s, self._clock = most_tokens, idle_s, clock
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], _Session] = {}

    @property
    def tokens(self) -> int:
        """Tokens for which there is room in the sessions that are open."""
        return sum(one.room for one in self._open.values())

    @property
    def most_bytes(self) -> int:
        """Bytes of the largest message."""
        return self._most * self._wire.bytes_of(self._part.width)

    def answer(self, asked: Message) -> Message:
        """Return the answer to a client's message.

        Raises DataError for one that does not follow those before, NotYet where there is no room now.
        """
        with self._lock:
            self._forget_silent()
            session = self._open.get((asked.client, asked.session))
            if session is None:
                return self._opened(asked) if asked.kind == "OPEN" else replace(asked, kind="GONE", packet=_NOTHING)
            session.heard_s = self._clock()
            if asked.step == session.asked.step and same_message(asked, session.asked):
                return session.answer
            if asked.step != session.asked.step + 1:
                raise DataError(
                    f"session '{asked.session[:80]}': found message {asked.step}, the last was {session.asked.step}."
                )
            session.answer = self._answered(session, asked)
            session.asked = asked
            return session.answer

    def _answered(self, session: _Session, asked: Message) -> Message:
        if asked.kind == "CLOSE":
            del self._open[asked.client, asked.session]
        elif asked.kind == "ROLLBACK":
            session.reading.roll_back(asked.micro)
        elif asked.kind == "READ":
            return self._told(session.reading, asked)
        else:
            raise DataError(f"session '{asked.session[:80]}': found {asked.kind} within it.")
        return asked

    def _told(self, reading: Reading, asked: Message) -> Message:
        where = f"client '{asked.client}', session, token {asked.micro}"
        if asked.micro != reading.length:
            raise DataError(f"{where}: the session has read {reading.length} tokens, what is sent must follow them.")
        rows_TD = self._wire.decode(asked.packet, asked.n_tokens, self._part.width, where)
        out_TD = reading.states(rows_TD.to(self._part.device, self._part.dtype))
        return replace(asked, kind="TOLD", packet=self._wire.encode(out_TD, where))

    def _opened(self, asked: Message) -> Message:
        room = asked.n_tokens
        if not 1 <= room <= self._most:
            raise DataError(f"session: found a room of {room} tokens, allowed are 1 to {self._most}; ask for fewer.")
        if self.tokens + room > self._most:
            raise NotYet(f"session: {room} tokens have no room beside {self.tokens} of {self._most}; ask again.")
        reading = Reading(self._part, self._params(asked.client), room)
        self._open[asked.client, asked.session] = _Session(asked, asked, reading, room, self._clock())
        return asked

    def _forget_silent(self) -> None:
        now_s = self._clock()
        for key in [key for key, one in self._open.items() if now_s - one.heard_s > self._idle_s]:
            del self._open[key]
