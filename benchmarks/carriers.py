"""Entry j: rounds between machines on loopback, without training: what the way costs, and what a secure sum costs.

    python -m benchmarks.carriers [--quick]

A server in this process, three nodes as processes, certificates on both sides. A round sends a row to every node and
brings a row of every node back, checked by its hash, decoded, and merged; the nodes answer with a row that they hold.
Beside it rounds of Flower with rows of the same size (`_flower_carrier.py`), one federation after the other. Secure
sums are those of the library, in one process, of 10 clients with 1 M numbers each.
"""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._common import (
    Figure,
    Sample,
    Settings,
    Target,
    entry,
    forget_peak,
    in_fresh_process,
    peak_bytes,
    ratio,
    report,
)
from benchmarks._flower_carrier import flower_rounds, flower_venv, flower_version
from fedloom.base.mean import Mean
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Report, Work
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.plain import plain_plan
from fedloom.federated.rounds import begin, step
from fedloom.network import keys
from fedloom.network.channel import Link
from fedloom.network.door import serving
from fedloom.network.enrolment import Enrolment, NodeEntry
from fedloom.network.frames import Frame
from fedloom.network.hub import Hub
from fedloom.network.jobs import JobFrame, report_to
from fedloom.network.keys import Keys
from fedloom.network.partaking import verifier
from fedloom.network.pieces import Inbox
from fedloom.network.remote import Remote
from fedloom.runs.tuning import Deployment
from fedloom.secure_sum.collector import Collector
from fedloom.secure_sum.graph import smallest
from fedloom.secure_sum.numbers import Numbers
from fedloom.secure_sum.party import Party
from fedloom.secure_sum.terms import Terms

__all__ = ["MB", "NODES", "federation", "identities", "main"]

NODES = ("north", "south", "west")
MB = 1_000_000
SIZES = {"1 MB": MB, "100 MB": 100 * MB}
_NO_FLOWER = "not beside Flower, whose environment is missing: `make test-carrier-flower` makes it"


def main(settings: Settings) -> list[Figure]:
    """Measure rounds, beside Flower too, the server's memory, and secure sums."""
    if settings.part:
        return report(_memory(int(settings.part), settings))
    small, large = ("1 MB", "100 MB") if not settings.quick else ("1 MB", "1 MB")
    rounds_s = {name: _rounds(SIZES[name], settings.repeats(12 if name == "1 MB" else 4)) for name in (small, large)}
    figures = [
        Figure(
            entry="j",
            what=f"a round of {small} to and from three nodes, beside training",
            value=statistics.median(rounds_s[small]),
            unit="s",
            target=Target("<=", 0.3),
            ours=Sample(tuple(rounds_s[small])),
            note="" if flower_venv() else _NO_FLOWER,
        ),
        Figure(
            entry="j",
            what=f"bytes of a round of {large}, to and from three nodes together",
            value=2 * len(NODES) * SIZES[large] / MB / statistics.median(rounds_s[large]),
            unit="MB/s",
            target=Target(">=", 50),
            ours=Sample(tuple(rounds_s[large])),
        ),
    ]
    return [*figures, *_beside_flower(rounds_s, settings), _peak(SIZES[large], settings), *_secure_sum(settings)]


# ------------------------------------------------------------------------------------------------------------- rounds


@contextmanager
def federation(size: int, folder: Path, known: Mapping[str, Keys], started: Sequence[str] = NODES) -> Iterator[Any]:
    """Give what makes a round: a plan, its first state, a carrier, and its port; the nodes `started` here are there."""
    layout = Layout((("", "row", (size,)),))
    plan = plain_plan(NODES, LocalSettings(steps=1), layout, rounds=10_000)
    hub = Hub("ab", Enrolment(nodes={name: NodeEntry(clients=(name,)) for name in NODES}), folder / "in", Deployment())
    carrier = Remote(hub).start(Work(plan=plan, model=None, task=None, shards={}, private={}))  # pyright: ignore
    with ExitStack() as stack:
        port = stack.enter_context(
            serving(hub, "127.0.0.1:0", known["study"], lambda node, hello: Frame({"kind": "welcome"}))
        )
        context = multiprocessing.get_context("spawn")
        nodes = [
            context.Process(target=_node, args=(name, port, known[name], size, str(folder)), daemon=True)
            for name in started
        ]
        for node in nodes:
            node.start()
            stack.callback(node.terminate)
        while not all(hub.status()["nodes"][name]["here"] for name in started):
            time.sleep(0.05)
        yield plan, begin(plan, torch.zeros(size)), carrier, port


@contextmanager
def _own_federation(size: int) -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as folder, federation(size, Path(folder), identities(Path(folder))) as made:
        yield made


def _ca(folder: Path) -> str:
    return (folder / "ca" / "ca.pem").read_text(encoding="utf-8")


def identities(folder: Path, nodes: Sequence[str] = NODES) -> dict[str, Keys]:
    """Return the keys of the server and of nodes, made in a folder."""
    keys.make_authority(folder / "ca", "bench")
    found: dict[str, Keys] = {}
    for name in ("study", *nodes):
        kind = "server" if name == "study" else "node"
        keys.make_key(folder / f"{name}.key")
        text, _ = keys.sign_request(folder / "ca", keys.make_request(folder / f"{name}.key", kind, name), kind)
        found[name] = Keys(text, (folder / f"{name}.key").read_bytes(), _ca(folder))
    return found


def _node(name: str, port: int, identity: Keys, size: int, folder: str) -> None:
    """Answer every job with the same row, once its own has come whole."""
    torch.set_num_threads(1)
    row_P = torch.linspace(-1, 1, size)
    inbox = Inbox(Path(folder) / f"node-{name}")
    link = Link(f"127.0.0.1:{port}", "study", identity, name)
    for frame in link.join({"kind": "hello"}):
        if frame.header.get("kind") != "job":
            continue
        job = JobFrame.from_header(frame.header)
        for piece in link.fetch(job.body.digest, 0):
            inbox.add("body", job.body, inbox.have("body"), piece)
        if inbox.whole("body", job.body) is None:
            raise RuntimeError("the body did not come whole")
        inbox.drop("body")
        packet = row_P.view(torch.uint8)
        layout = Layout((("delta", "", (size,)),))
        header = report_to(Report(name, packet, layout, 1.0, 1, 1, Mean(1.0, 1.0), {}, 1), job.id)
        verdict = link.offer(header)
        while verdict.kind == "wanted":
            verdict = link.send({"kind": "piece", "job": job.id}, packet.numpy().tobytes(), verdict.start)


def _rounds(n_bytes: int, repeats: int) -> list[float]:
    """Return the seconds of so many rounds, after one that is not counted."""
    with _own_federation(n_bytes // 4) as (plan, state, carrier, _):
        found: list[float] = []
        for _ in range(repeats + 1):
            start_s = time.perf_counter()
            state, _ = step(plan, state, carrier)
            found.append(time.perf_counter() - start_s)
    return found[1:]


def _beside_flower(rounds_s: Mapping[str, list[float]], settings: Settings) -> list[Figure]:
    """Compare rounds with those of Flower, as its programs start by default."""
    venv = flower_venv()
    if venv is None:
        return []
    sizes = {"4 kB": 4000} if settings.quick else {"1 MB": MB, "10 MB": 10 * MB}
    numbers = {name: n_bytes // 4 for name, n_bytes in sizes.items()}
    theirs_s = flower_rounds(venv, numbers, nodes=len(NODES), rounds=1 if settings.quick else 4)
    ours_s = {name: rounds_s.get(name) or _rounds(sizes[name], settings.repeats(12)) for name in sizes}
    return [
        ratio(
            "j",
            f"a round of {name} to and from three nodes: Flower over fedloom",
            ours=Sample(tuple(ours_s[name])),
            other=Sample(tuple(theirs_s[name])),
            work={"flwr": flower_version(venv), "bytes each way": sizes[name] * len(NODES)},
            note="Flower without TLS, fedloom with; Flower asks every 3 s and starts a process for each answer",
        )
        for name in sizes
    ]


def _peak(n_bytes: int, settings: Settings) -> Figure:
    added = in_fresh_process("benchmarks.carriers", str(n_bytes), settings)["added_bytes"]
    return Figure(
        entry="j",
        what=f"memory that rounds of {n_bytes // MB} MB add at the server, less two rows",
        value=(added - 2 * n_bytes) / MB,
        unit="MB",
        target=Target("<=", 200),
        ours=Sample((added / MB,), "MB"),
        note="parameters, what nodes fetch, the row that comes in and a float64 sum",
    )


def _memory(n_bytes: int, settings: Settings) -> dict[str, float]:
    with _own_federation(n_bytes // 4) as (plan, state, carrier, _):
        before = forget_peak(settings)
        for _ in range(2):
            state, _ = step(plan, state, carrier)
        return {"added_bytes": peak_bytes(settings) - before}


# -------------------------------------------------------------------------------------------------------- secure sums


def _secure_sum(settings: Settings) -> list[Figure]:
    """Return what a sum of 10 clients costs each of them and the server, without drop-outs and with two."""
    size = 10_000 if settings.quick else MB
    sides: dict[str, list[float]] = {"client": [], "server": [], "server, two lost after masking": []}
    with tempfile.TemporaryDirectory() as folder:
        known = identities(Path(folder), [f"c{place}" for place in range(10)])
        for _ in range(settings.repeats(5)):
            client_s, server_s = _summed(size, known, Path(folder), lost=0)
            sides["client"].append(client_s)
            sides["server"].append(server_s)
            sides["server, two lost after masking"].append(_summed(size, known, Path(folder), lost=2)[1])
    return [
        Figure(
            entry="j",
            what=f"secure sum of 10 clients, {size:,} numbers: {side}",
            value=1000 * statistics.median(found_s),
            unit="ms",
            target=Target("<=", 50),
            ours=Sample(tuple(1000 * one for one in found_s), "ms"),
        )
        for side, found_s in sides.items()
    ]


def _summed(size: int, known: dict[str, Keys], folder: Path, *, lost: int) -> tuple[float, float]:
    """Return the seconds of a client, the mean over all, and of the server, of one sum, signatures and all."""
    names = tuple(name for name in known if name != "study")
    numbers, graph = Numbers(10, 20, 1.0), smallest(10, colluding=0.1, lost=0.2)
    terms = Terms("ab", 0, names, numbers.size(size), graph.degree, graph.threshold, 8, numbers.told())
    row_P = np.linspace(-1, 1, size, dtype=np.float32)
    spent = {"client": 0.0, "server": 0.0}

    def timed(side: str, call: Any, *given: Any) -> Any:
        start_s = time.perf_counter()
        try:
            return call(*given)
        finally:
            spent[side] += time.perf_counter() - start_s

    def signing(name: str) -> Any:
        return lambda said: keys.sign_bytes(folder / f"{name}.key", said)

    certificates = {name: known[name].certificate for name in names}
    verify = verifier(certificates, {name: name for name in names}, _ca(folder))
    parties = {name: Party(terms, name, sign=signing(name), verify=verify) for name in names}
    collector = Collector(terms, verify)
    for party in parties.values():
        timed("server", collector.take_advert, timed("client", party.advertise))
    roster = timed("server", collector.roster)
    for party in parties.values():
        timed("server", collector.take_shares, timed("client", party.share, roster))
    boxes = timed("server", collector.boxes)
    for name in names[lost:]:
        row_S = timed("client", numbers.encode, row_P)
        timed("server", collector.take_row, timed("client", parties[name].mask, boxes[name], row_S))
    survivors = timed("server", collector.survivors)
    for name in names[lost:]:
        timed("server", collector.take_confirmation, timed("client", parties[name].confirm, survivors))
    confirmations = timed("server", collector.confirmations)
    for name in names[lost:]:
        timed("server", collector.take_opened, timed("client", parties[name].unmask, confirmations[name]))
    timed("server", collector.total)
    return spent["client"] / (10 - lost), spent["server"]


if __name__ == "__main__":
    entry(main)
