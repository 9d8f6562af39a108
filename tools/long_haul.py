"""Large rows over a link that breaks: to and from three nodes, every connection cut again and again.

    python -m tools.long_haul [--megabytes 1000] [--cut-every-s 10]

A relay on loopback stands between the nodes and the server, and hangs up on everybody every few seconds. What arrives
is checked by its SHA-256 on both sides; the round is merged as ever, and its result has to be the mean of the rows.
It takes about seven times the row in memory and as much on the disk.
"""

import argparse
import contextlib
import multiprocessing
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from benchmarks.carriers import MB, NODES, federation, identities

from fedloom.base.mean import Mean
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Report
from fedloom.federated.rounds import step
from fedloom.network.channel import Link
from fedloom.network.jobs import JobFrame, report_to
from fedloom.network.keys import Keys
from fedloom.network.link import Unreachable
from fedloom.network.pieces import Inbox

__all__ = ["Relay", "main"]

_PAUSE_S = 0.2


class Relay:
    """Passes bytes between nodes and a server, and hangs up on everybody every few seconds."""

    def __init__(self, cut_every_s: float) -> None:
        self.cuts, self.passed_bytes, self.far_port = 0, 0, 0
        self._every_s, self._open = cut_every_s, list[socket.socket]()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self._over = threading.Event()
        for work in (self._accept, self._cut):
            threading.Thread(target=work, daemon=True).start()

    def close(self) -> None:
        """Let nobody in any more."""
        self._over.set()
        self._door.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                near, _ = self._door.accept()
                far = socket.create_connection(("127.0.0.1", self.far_port))
            except OSError:
                continue
            self._open += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
                self.passed_bytes += len(data)
        _hang_up(one)
        _hang_up(other)

    def _cut(self) -> None:
        while not self._over.wait(self._every_s):
            lines, self._open = self._open, []
            self.cuts += bool(lines)
            for line in lines:
                _hang_up(line)


def _hang_up(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def _row(name: str, size: int) -> torch.Tensor:
    """Return a node's row, unlike the others'."""
    return torch.linspace(-1, 1, size) * (1 + NODES.index(name))


def _node(name: str, port: int, identity: Keys, size: int, folder: str) -> None:
    """Answer a job with a row, going on wherever a connection broke, until the server says that it is over."""
    torch.set_num_threads(1)
    packet = _row(name, size).view(torch.uint8)
    inbox = Inbox(Path(folder) / f"node-{name}")
    while True:
        link = Link(f"127.0.0.1:{port}", "study", identity, name)
        try:
            if _served(link, name, packet, size, inbox):
                return
        except Unreachable:
            time.sleep(_PAUSE_S)
        finally:
            link.close()


def _served(link: Link, name: str, packet: torch.Tensor, size: int, inbox: Inbox) -> bool:
    """Carry out jobs over one connection; return whether the server is done."""
    for frame in link.join({"kind": "hello"}):
        if frame.header.get("kind") == "end":
            return True
        if frame.header.get("kind") != "job":
            continue
        job = JobFrame.from_header(frame.header)
        while inbox.whole("body", job.body) is None:
            for piece in link.fetch(job.body.digest, inbox.have("body")):
                inbox.add("body", job.body, inbox.have("body"), piece)
        layout = Layout((("delta", "", (size,)),))
        header = report_to(Report(name, packet, layout, 1.0, 1, 1, Mean(1.0, 1.0), {}, 1), job.id)
        verdict = link.offer(header)
        while verdict.kind == "wanted":
            verdict = link.send({"kind": "piece", "job": job.id}, memoryview(packet.numpy()), verdict.start)  # pyright: ignore[reportArgumentType]
    return False


@contextlib.contextmanager
def _nodes(relay: Relay, folder: Path, known: Mapping[str, Keys], size: int) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    nodes = [
        context.Process(target=_node, args=(name, relay.port, known[name], size, str(folder)), daemon=True)
        for name in NODES
    ]
    for node in nodes:
        node.start()
    try:
        yield
    finally:
        for node in nodes:
            node.terminate()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print how long a round took, and whether its result is the mean of the rows; return 1 if it is not."""
    parser = argparse.ArgumentParser(prog="python -m tools.long_haul")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--cut-every-s", type=float, default=10.0)
    asked = parser.parse_args(arguments)
    size, relay = asked.megabytes * MB // 4, Relay(asked.cut_every_s)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        known = identities(folder)
        plan, state, carrier, relay.far_port = stack.enter_context(federation(size, folder, known, started=()))
        stack.enter_context(_nodes(relay, folder, known, size))
        start_s = time.perf_counter()
        done, _ = step(plan, state, carrier)
        wall_s = time.perf_counter() - start_s
    relay.close()
    mean_P = sum((_row(name, size) for name in NODES[1:]), start=_row(NODES[0], size)) / len(NODES)
    same = torch.allclose(done.params_P, mean_P, rtol=1e-6, atol=1e-6)
    print(
        f"{asked.megabytes} MB to and from {len(NODES)} nodes in {wall_s:.1f} s, {relay.cuts} cuts on the way, "
        f"{relay.passed_bytes / MB:.0f} MB passed the relay; the result is {'' if same else 'NOT '}the mean of the rows"
    )
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
