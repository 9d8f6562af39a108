"""Sub-servers in processes of their own, each with a replica of the server's part, averaged by `torch.distributed`.

Each sub-server takes the steps of its clients one after another; after every step of all its clients the replicas
become the mean of all (server-hierarchical of FL-GLM, arXiv:2406.14898; 1.6 of the specification).
Workers are this program's own children, started with what it pickles, and meet on the loopback interface.

Deviations: replicas of a run lie in one `Body`, whose clients pass together; here are the processes that a deployment
would have, for what they take.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed, multiprocessing

from fedloom.contracts.language import LanguageModel
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.engines.processes import join
from fedloom.models import attention as packed
from fedloom.split.body import Body, Middle
from fedloom.split.carrier import SplitSettings
from fedloom.split.emulation import Client, Pipe
from fedloom.split.lockstep import Lockstep
from fedloom.split.messages import Message

__all__ = ["Share", "averaged_steps"]


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a sub-server is started with."""

    model: LanguageModel
    split: SplitSettings
    local: LocalSettings
    seconds: tuple[float, float, float]
    messages: tuple[Message, Message]
    latency_s: float
    client_bytes_s: float
    server_bytes_s: float
    steps: int


def averaged_steps(share: Share, n_clients: int, n_servers: int) -> tuple[float, float]:
    """Return the wall seconds of a step of all clients, and those of an average, at so many sub-servers."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="fedloom-sub-") as folder:
        workers = [
            context.Process(target=_work, args=(share, n_clients, rank, n_servers, folder), daemon=True)
            for rank in range(n_servers)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        wall_s, average_s = map(float, (Path(folder) / "took.txt").read_text(encoding="utf-8").split())
    return wall_s, average_s


def _work(share: Share, n_clients: int, rank: int, n_servers: int, folder: str) -> None:
    """Take the steps of this sub-server's clients; the first one tells how long all took."""
    torch.set_num_threads(1)
    packed.register()
    group = join(folder, rank, n_servers)
    names = [f"c{k}" for k in range(rank, n_clients, n_servers)]
    cut, shared = share.split.one_cut(), Pipe(share.server_bytes_s)
    body = share.split.body(Middle.of(share.model, [cut]), dict.fromkeys(names, cut), share.local, tuple(names))
    taken = [
        (
            Client(name, share.seconds, share.messages, share.latency_s, Pipe(share.client_bytes_s), shared),
            Lockstep(body=body, clients=(name,), seed=(0,), n_micro=1, lr=share.local.lr, folder=Path(folder) / name),
        )
        for name in names
    ]
    averages: list[float] = []
    start_s = 0.0
    for step in range(1 + share.steps):
        for client, server in taken:
            client.takes(server, step)
        distributed.barrier(group)
        begun_s = time.monotonic()
        _average(body, n_servers, group)
        averages.append(time.monotonic() - begun_s)
        start_s = start_s or time.monotonic()  # the first step warms up
    wall_s = (time.monotonic() - start_s) / share.steps
    for _, server in taken:
        server.close()
    if rank == 0:
        (Path(folder) / "took.txt").write_text(f"{wall_s} {statistics.median(averages)}", encoding="utf-8")
    distributed.barrier(group)
    distributed.destroy_process_group(group)


def _average(body: Body, n_servers: int, group: distributed.ProcessGroup) -> None:
    """Let every sub-server's adapter be the mean of all."""
    kept = body.kept()
    for row_P in kept["rows"].values():
        distributed.all_reduce(row_P, group=group)
        row_P /= n_servers
    body.load(kept)
