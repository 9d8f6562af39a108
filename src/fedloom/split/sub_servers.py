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
from pathlib import Path

import torch
from torch import distributed, multiprocessing

from fedloom.base.errors import RunError
from fedloom.federated.engines.processes import join
from fedloom.models import attention as packed
from fedloom.split.body import Body
from fedloom.split.emulation import Trial

__all__ = ["averaged_steps"]

_TOOK = "took.txt"


def averaged_steps(trial: Trial, n_clients: int, n_servers: int) -> tuple[float, float]:
    """Return the wall seconds of a step of all clients, and those of an average, at so many sub-servers."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="fedloom-sub-") as folder:
        workers = [
            context.Process(target=_work, args=(trial, n_clients, rank, n_servers, folder), daemon=True)
            for rank in range(n_servers)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            raise RunError("a sub-server has failed; its own message stands above.")
        wall_s, average_s = map(float, (Path(folder) / _TOOK).read_text(encoding="utf-8").split())
    return wall_s, average_s


def _work(trial: Trial, n_clients: int, rank: int, n_servers: int, folder: str) -> None:
    """Take the steps of this sub-server's clients; the first one tells how long all took."""
    torch.set_num_threads(1)
    packed.register()
    group = join(folder, rank, n_servers)
    names = [f"c{k}" for k in range(rank, n_clients, n_servers)]
    body = trial.body(names)
    taken = [(one, trial.server(body, [one.name], Path(folder) / one.name)) for one in trial.clients(names)]
    averages: list[float] = []
    start_s = 0.0
    for step in range(1 + trial.steps):
        for client, server in taken:
            client.takes(server, step)
        distributed.barrier(group)
        begun_s = time.monotonic()
        _average(body, n_servers, group)
        averages.append(time.monotonic() - begun_s)
        start_s = start_s or time.monotonic()  # the first step warms up
    wall_s = (time.monotonic() - start_s) / trial.steps
    for _, server in taken:
        server.close()
    if rank == 0:
        (Path(folder) / _TOOK).write_text(f"{wall_s} {statistics.median(averages)}", encoding="utf-8")
    distributed.barrier(group)
    distributed.destroy_process_group(group)


def _average(body: Body, n_servers: int, group: distributed.ProcessGroup) -> None:
    """Let every sub-server's adapter be the mean of all."""
    kept = body.kept()
    for row_P in kept["rows"].values():
        distributed.all_reduce(row_P, group=group)
        row_P /= n_servers
    body.load(kept)
