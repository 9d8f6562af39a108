"""What the parts of the server's half share: the open round, nodes, what has arrived, whom the run waits for."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedloom.base.errors import DataError, RunError
from fedloom.base.files import disk_errors, file_name
from fedloom.network.enrolment import Enrolment
from fedloom.network.frames import Frame
from fedloom.network.jobs import JobFrame
from fedloom.network.meters import Meters
from fedloom.network.open_round import OpenRound
from fedloom.network.pieces import Inbox, Piece
from fedloom.runs.tuning import Deployment

__all__ = ["PACKETS", "Desk", "Drained", "NodeHere", "Send", "kept_in"]

PACKETS = "packets"
"""Folder of what a server received, beside what is arriving."""

Send = Callable[[Frame], None]
"""Puts a frame on a node's stream."""


class Drained(RunError):
    """A server was asked to end and has; `fedloom resume` goes on where it was."""


@dataclass
class NodeHere:
    """A node that is connected, or was."""

    name: str
    send: Send | None = None
    last_s: float = 0.0
    told: dict[str, Any] = field(default_factory=dict[str, Any])
    certificate: str = ""
    process: str = ""
    """What the node calls its process: another one has lost the secrets of a sum under way."""
    came_anew: bool = False
    """Whether it was started since the attempt at a sum began."""
    gone_s: float = 0.0
    """When it left; 0 while it is here, and before it ever was."""


def kept_in(packets: Path, round: int, name: str) -> Path:
    """Return where a server keeps a packet of a round; the header lies beside it as JSON."""
    return packets / f"round_{round:05d}" / f"{name}.bin"


class Desk:
    """The state of a run's rounds at the server; its lock is held by whoever reads or changes it."""

    def __init__(self, run: str, enrolment: Enrolment, folder: Path, settings: Deployment) -> None:
        self.run = run
        self.enrolment, self.settings = enrolment, settings
        self._inbox = Inbox(folder)
        self.packets = folder.with_name(PACKETS)
        self._body = folder.with_name("body.bin")
        self._checking = threading.Lock()
        """Held while a row is looked at, so that one lies in memory however many arrive at once."""
        self._lock = threading.Condition()
        self._nodes = {name: NodeHere(name) for name in enrolment.nodes}
        self._now: OpenRound | None = None
        self._looked_s = 0.0
        self.over = False
        self.broken = ""
        """Why the run cannot go on, where the way to all nodes is gone."""
        self.authority = ""
        """The certificate of the federation's authority, by which clients know each other in secure sums."""
        self.watch: Callable[[dict[str, Any]], None] = lambda _: None
        """Told now and then whom the run waits for."""
        self.meters, self.listening = Meters(), False
        self.stopping, self.drain_s, self._stopped_s = threading.Event(), 60.0, 0.0
        """Set by whoever wants the server to end; seconds that the open round then has; when that was noticed."""

    def heard(self, node: str) -> None:
        """Take note of a sign of life."""
        with self._lock:
            self._nodes[node].last_s = time.monotonic()

    def keep_body(self, body: bytes) -> Piece:
        """Put what the coming round's nodes fetch on the disk, in place of the last one's."""
        new = self._body.with_suffix(".new")
        with disk_errors(self._body):
            new.write_bytes(body)
            new.replace(self._body)  # who still reads the old one has it open
        return Piece.of(body)

    def _look(self) -> None:
        """Tell whom the run waits for, once a second; RunError where it waits in vain."""
        if self.broken:
            raise RunError(self.broken)
        if self.stopping.is_set():
            self._stopped_s = self._stopped_s or time.monotonic()
            if time.monotonic() - self._stopped_s >= self.drain_s:
                self.refuse_drained()
        if time.monotonic() - self._looked_s >= 1:
            self._looked_s = time.monotonic()
            self.watch(self.status())

    def refuse_drained(self) -> None:
        """Raise Drained where the server was asked to end."""
        if self.stopping.is_set():
            now = self._now
            left = "" if now is None or now.closed else f", round {now.round} is open: what came is kept"
            raise Drained(f"drained{left}; `fedloom resume` goes on.")

    @property
    def state(self) -> str:
        """What the server is at, in a word: "ready" where nodes are served and rounds are opened."""
        if self.over or self.broken:
            return "over"
        return "draining" if self.stopping.is_set() else "ready" if self.listening else "starting"

    def gauges(self) -> dict[str, dict[str, float]]:
        """Return what is so at this moment, in numbers (`Meters.text`)."""
        status, phases = self.status(), dict[str, float]()
        phases |= dict.fromkeys(("working", "sending", "reported", "refused", "declined"), 0.0)
        for client in status["clients"].values():
            phases[client["phase"]] += 1
        here = sum(node["here"] for node in status["nodes"].values())
        return {
            "nodes_enrolled": {"": len(status["nodes"])},
            "nodes_present": {"": here},
            "round": {"": -1 if status["round"] is None else status["round"]},
            "clients": phases,
            "ready": {"": self.state == "ready"},
        }

    def status(self) -> dict[str, Any]:
        """Return whom the run waits for: which nodes are there, when each was last heard, what each client does."""
        with self._lock:
            now, clock = self._now, time.monotonic()
            nodes = {
                name: {
                    "here": node.send is not None,
                    "seen_s_ago": round(clock - node.last_s, 1) if node.last_s else None,
                }
                for name, node in self._nodes.items()
            }
            told: dict[str, Any] = {"run": self.run, "nodes": nodes, "over": self.over}
            if now is None:
                return told | {"round": None, "clients": {}}
            return told | {"round": now.round, "clients": {client: self._phase(now, client) for client in now.jobs}}

    def _phase(self, now: OpenRound, client: str) -> dict[str, Any]:
        if client in now.came:
            return {"phase": "reported"}
        if client in now.refused:
            return {"phase": "refused", "reason": now.refused[client]}
        if client in now.declined:
            return {"phase": "declined", "reason": now.declined[client]}
        have = self._inbox.have(self._name(now.jobs[client]))
        size = now.headers[client]["size"] if client in now.headers else None
        return {"phase": "sending" if client in now.headers else "working", "bytes": have, "of": size}

    def _waiting(self, now: OpenRound) -> str:
        """Return whom a round waits for, in words."""
        missing = [client for client in now.jobs if client not in now.came]
        whose = {client: self.enrolment.of_client(client)[0] for client in missing}
        said = [
            f"{client} ({now.refused.get(client) or now.declined.get(client) or self._seen(whose[client])})"
            for client in missing
        ]
        return f"missing: {', '.join(said)}"

    def _seen(self, node: str) -> str:
        here = self._nodes[node]
        if not here.last_s:
            return f"node '{node}' has never been here"
        ago = time.monotonic() - here.last_s
        return f"node '{node}' {'is at work' if here.send else 'is gone'}, last heard {ago:.0f} s ago"

    def _current(self) -> OpenRound:
        if self._now is None:
            raise DataError("no round is open.")
        return self._now

    def _name(self, job: JobFrame) -> str:
        return f"{job.round:06d}-{file_name(job.client)}"
