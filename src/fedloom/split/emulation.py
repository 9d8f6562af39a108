"""Clients and links that are emulated around a server that is not: what a course of split steps takes in wall time.

The server is the one of machines (`Lockstep`), with its batches, its optimiser and what it writes down. A client takes
as long as its computing took when it was measured alone, and sends what it sent then. A message takes its turn on the
client's own link, then on the server's, which all share, and arrives after the latency; either direction takes from
the same link, as in the formulas (`course_costs`).

Deviations: the specification has client processes; on a machine with fewer cores than clients these would take one
another's time, which they do not between machines.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedloom.contracts.language import LanguageModel
from fedloom.contracts.local_settings import LocalSettings
from fedloom.split.body import Body, Middle
from fedloom.split.carrier import SplitSettings
from fedloom.split.lockstep import Lockstep
from fedloom.split.messages import Message

__all__ = ["Client", "Pipe", "Trial", "loops", "overlapped", "serial", "two_in_flight"]


@dataclass
class Pipe:
    """A link that carries one message after another."""

    bytes_s: float
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _free_s: float = 0.0

    def through_s(self, n_bytes: int, from_s: float) -> float:
        """Return when a message that may start at a time has passed."""
        with self._lock:
            self._free_s = max(from_s, self._free_s) + n_bytes / self.bytes_s
            return self._free_s


@dataclass
class Client:
    """One emulated client: how long each part of its step takes, and what it sends."""

    name: str
    seconds: tuple[float, float, float]
    """Before FWD, between BODY and GRAD, and behind BACK."""
    messages: tuple[Message, Message]
    """FWD and GRAD of a step."""
    latency_s: float
    link: Pipe
    shared: Pipe
    """The server's link."""
    _core: threading.Lock = field(default_factory=threading.Lock)

    def computes(self, part: int) -> None:
        """Take the time of a part of a step; one at a time."""
        with self._core:
            time.sleep(self.seconds[part])

    def said(self, step: int, micro: int, part: int) -> Message:
        """Return FWD (0) or GRAD (1) of a micro-batch."""
        return replace(self.messages[part], client=self.name, step=step, micro=micro)

    def passes(self, n_bytes: int) -> None:
        """Take the time of a message, there or back."""
        own_s = self.link.through_s(n_bytes, time.monotonic())
        there_s = self.shared.through_s(n_bytes, own_s - n_bytes / self.shared.bytes_s) + self.latency_s
        time.sleep(max(0.0, there_s - time.monotonic()))

    def takes(self, server: Lockstep, step: int, micro: int = 0) -> None:
        """Take a micro-batch of a step with the server, from states to gradients."""
        for part in (0, 1):
            self.computes(part)
            message = self.said(step, micro, part)
            self.passes(message.packet.numel())
            answer = server.submit(message).result()
            self.passes(answer.packet.numel())
        self.computes(2)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What all courses share: the model and its server, and what is emulated around it."""

    model: LanguageModel
    split: SplitSettings
    local: LocalSettings
    seconds: tuple[float, float, float]
    """What the parts of a client's step take, as `Client.seconds`."""
    messages: tuple[Message, Message]
    latency_s: float
    client_bytes_s: float
    server_bytes_s: float
    steps: int
    """Steps that are timed, behind one that is not."""

    def clients(self, names: Sequence[str]) -> list[Client]:
        """Return emulated clients that share a server's link."""
        shared = Pipe(self.server_bytes_s)
        own = (self.seconds, self.messages, self.latency_s)
        return [Client(name, *own, Pipe(self.client_bytes_s), shared) for name in names]

    def body(self, names: Sequence[str]) -> Body:
        """Return the server's part of the model for clients."""
        cut = self.split.one_cut()
        return self.split.body(Middle.of(self.model, [cut]), dict.fromkeys(names, cut), self.local, tuple(names))

    def server(
        self,
        body: Body,
        names: Sequence[str],
        folder: Path,
        *,
        n_micro: int = 1,
        in_flight: int = 1,
        took: list[float] | None = None,
    ) -> Lockstep:
        """Return what computes the clients' steps together, with a journal in a folder; `took` gets their seconds."""

        def noted(_: Sequence[Message], __: float, computed_s: float) -> None:
            if took is not None:
                took.append(computed_s)

        return Lockstep(
            body=body,
            clients=tuple(names),
            seed=(0,),
            lr=self.local.lr,
            folder=folder,
            n_micro=n_micro,
            in_flight=in_flight,
            noted=noted,
        )


def serial(clients: Sequence[Client], servers: Sequence[Lockstep], steps: range) -> None:
    """Take steps client after client, each with a server of its own."""
    for step in steps:
        for client, server in zip(clients, servers, strict=True):
            client.takes(server, step)


def loops(clients: Sequence[Client], servers: Sequence[Lockstep], steps: range) -> None:
    """Take steps whose rows pass the one server together, and which the clients work off one after another."""
    (server,) = servers
    for step in steps:
        for part in (0, 1):
            promised = []
            for client in clients:
                client.computes(part)
                message = client.said(step, 0, part)
                client.passes(message.packet.numel())
                promised.append(server.submit(message))
            for client, answer in zip(clients, promised, strict=True):
                client.passes(answer.result().packet.numel())
        for client in clients:
            client.computes(2)


def overlapped(clients: Sequence[Client], servers: Sequence[Lockstep], steps: range) -> None:
    """Take steps of all clients at once, with one server."""
    (server,) = servers

    def work(client: Client) -> None:
        for step in steps:
            client.takes(server, step)

    _all_at_once([lambda client=client: work(client) for client in clients])


def two_in_flight(clients: Sequence[Client], servers: Sequence[Lockstep], steps: range) -> None:
    """Take steps of all clients at once with one server, of whose micro-batches two are under way."""
    (server,) = servers

    def work(client: Client, half: int) -> None:
        for step in steps:
            for micro in range(half, server.n_micro, 2):
                client.takes(server, step, micro)

    _all_at_once([lambda client=client, half=half: work(client, half) for client in clients for half in (0, 1)])


def _all_at_once(works: Sequence[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(works)) as threads:
        for future in [threads.submit(work) for work in works]:
            future.result()
