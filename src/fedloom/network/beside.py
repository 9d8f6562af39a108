"""Several clients of one node in a split run: each trains in a thread of its own, and one computes at a time.

The server computes a step once the messages of all clients are there, so that a node's clients cannot train one after
another. Each has the turn while it computes, and lets go of it while it waits for the server (`Hands.exchange`): what
each computes is what it would compute alone, bit for bit, and memory and journals are one thread's at a time.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

__all__ = ["Beside"]


class Beside:
    """Jobs that are under way at a node; one at a time where `at_once` says 1."""

    def __init__(
        self, attempt: Callable[[Mapping[str, Any]], None], turn: threading.Lock, at_once: Callable[[], int]
    ) -> None:
        """Take what carries out the job of a header, the turn that it has meanwhile, and how many may be under way."""
        self._attempt, self._turn, self._at_once = attempt, turn, at_once
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: dict[str, Future[None]] = {}

    def begin(self, header: Mapping[str, Any]) -> None:
        """Carry out a job, or begin to, unless it is under way."""
        name = str(header.get("id"))
        if self._pool is None and (at_once := self._at_once()) > 1:
            self._pool = ThreadPoolExecutor(at_once)
        if self._pool is None:
            self._in_turn(header)
        elif name not in self._under_way:
            self._under_way[name] = self._pool.submit(self._in_turn, header)

    def check(self) -> None:
        """Raise what a job has raised that has ended."""
        for name in [name for name, job in self._under_way.items() if job.done()]:
            self._under_way.pop(name).result()

    def finish(self) -> None:
        """Wait for all jobs, and raise what the first of them has raised."""
        wait(self._under_way.values())
        self.check()

    def drop(self) -> None:
        """Wait for all jobs, whatever becomes of them."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def _in_turn(self, header: Mapping[str, Any]) -> None:
        with self._turn:
            self._attempt(header)
