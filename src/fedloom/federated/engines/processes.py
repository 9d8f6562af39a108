"""Clients shared out over worker processes, one per GPU or CPU core; each worker runs an engine of its own.

Jobs and reports travel by `torch.distributed` (gloo) over the loopback interface of one host; rows rest on the CPU, so
no faster carrier is needed. A client's numbers do not depend on its worker: with `sequential` inside, the result is
that of one process bit for bit on the CPU; with `cohort` inside, other clients meet in a wave, and sums may differ in
their last digits. Workers are this program's own children, started with what it pickles.
"""

import os
import sys
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, ClassVar

import torch
from torch import distributed, multiprocessing

from fedloom.base.errors import ConfigError, FedloomError, RunError
from fedloom.base.outside import Travelling
from fedloom.base.plugin import AtLeast, default, plugin
from fedloom.contracts.federated import Carrier, Engine, Job, Report, Work
from fedloom.models import attention as packed

__all__ = ["Processes", "join"]

_PATIENCE = timedelta(hours=24)  # the longest round of a worker


@plugin("processes")
class Processes(Engine):
    """Trains the clients of a round in several processes."""

    starts_workers: ClassVar[bool] = True

    workers: AtLeast = 2
    """Processes; on CUDA at most as many as there are GPUs."""
    inner: Engine = field(default_factory=default(Engine, "sequential"))
    """What each worker runs on its share of the clients."""

    def check(self) -> None:
        """Refuse workers that would start workers."""
        if self.inner.starts_workers:
            raise ConfigError(
                f"engine.inner: found '{self.inner.name}' in '{self.name}', allowed are 'sequential' and 'cohort'."
            )

    def resolved(self, work: Work, *, n_clients: int) -> "Processes":
        """Return the engine with the inner one's choices made for a worker's share."""
        return replace(self, inner=self.inner.resolved(work, n_clients=-(-n_clients // self.workers)))

    def start(self, work: Work) -> Carrier:
        """Return a carrier that sends each worker its share of a round's jobs; workers end with it."""
        pool = _Pool.of(work, self)

        def carry(jobs: Iterable[Job]) -> Iterator[Report]:
            return pool.carry(list(jobs))

        weakref.finalize(carry, pool.close)
        return carry


@dataclass(frozen=True)
class _Pool:
    """Worker processes with ranks 1, 2, ...; rank 0 is this process."""

    group: Any
    workers: Sequence[Any]
    folder: tempfile.TemporaryDirectory[str]  # where they meet

    @classmethod
    def of(cls, work: Work, engine: Processes) -> "_Pool":
        device, count = work.model.device, engine.workers
        if device.type == "cuda" and count > torch.cuda.device_count():
            raise RunError(
                f"engine.workers: found {count}, this machine has {torch.cuda.device_count()} GPUs; allowed is one "
                "worker each."
            )
        folder = tempfile.TemporaryDirectory(prefix="fedloom-")
        context = multiprocessing.get_context("spawn")
        threads = torch.get_num_threads()
        sent = replace(work, model=replace(work.model, module=work.model.module.cpu()))
        workers = [
            context.Process(
                target=_work,
                args=(Travelling(), sent, engine.inner, rank, count + 1, folder.name, device.type, threads),
                daemon=True,
            )
            for rank in range(1, count + 1)
        ]
        for worker in workers:
            worker.start()
        work.model.module.to(device)
        return cls(join(folder.name, 0, count + 1), workers, folder)

    def carry(self, jobs: Sequence[Job]) -> Iterator[Report]:
        """Yield the reports in the order of the jobs."""
        count = len(self.workers)
        for rank in range(1, count + 1):
            distributed.send_object_list([list(jobs[rank - 1 :: count])], dst=rank, group=self.group)
        for index in range(len(jobs)):
            yield self._receive(1 + index % count)

    def _receive(self, rank: int) -> Report:
        box: list[Any] = [None]
        try:
            distributed.recv_object_list(box, src=rank, group=self.group)
        except RuntimeError as error:
            raise RunError(f"worker {rank} has ended; its own message stands above. Resume the run.") from error
        if isinstance(box[0], FedloomError):
            raise box[0]
        return box[0]

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.terminate()
            worker.join()
        distributed.destroy_process_group(self.group)
        self.folder.cleanup()


def join(folder: str, rank: int, size: int) -> Any:
    """Return the group of so many processes of this machine that meet at a folder."""
    # Never an interface that others can reach.
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size, timeout=_PATIENCE
    )
    return distributed.group.WORLD


def _work(
    _: Travelling, work: Work, engine: Engine, rank: int, size: int, folder: str, device: str, threads: int
) -> None:
    """Carry jobs until the parent ends this process."""
    torch.set_num_threads(threads)
    packed.register()
    if device == "cuda":
        work.model.module.to(torch.device("cuda", rank - 1))
    group = join(folder, rank, size)
    carrier = engine.start(work)
    while True:
        box: list[Any] = [None]
        distributed.recv_object_list(box, src=0, group=group)
        try:
            for report in carrier(box[0]):
                distributed.send_object_list([report], dst=0, group=group)
        except FedloomError as error:
            distributed.send_object_list([error], dst=0, group=group)
