"""Clients shared out over the actors of a Ray cluster, one per GPU or CPU slot; each actor runs an engine of its own.

Ray (Moritz et al. 2018, arXiv 1712.05889) finds the slots, starts the actors, moves objects, and starts an actor anew
that has died; jobs that it had not answered are carried out once more, which gives the same reports, since a report
depends on its job alone (noise of `noise = "system"` is drawn anew, and one of the two reports is all that is seen).
What all clients share is shipped once: model and data when an actor starts, the parameters of a round when it first
trains in that round.

Jobs travel in waves as the inner engine trains them, cut in the order of the jobs: who meets whom does not depend on
how many actors there are or how fast. So the result is that of the inner engine in this process, bit for bit on like
machines. Reports come back in that order; a few waves for each actor are on their way, and those answered early wait in
Ray's store, so that this program's memory does not grow with the number of clients.

One owner's machines, one domain of trust: Ray's actors run what this program pickles, every actor holds all clients'
data, and Ray tells no two users of a cluster apart. For owners who do not trust each other it is not.
"""

import logging
import weakref
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from fedloom.base.errors import ConfigError, FedloomError, RunError
from fedloom.base.extras import library
from fedloom.base.outside import Travelling
from fedloom.base.plugin import Count, default, plugin
from fedloom.contracts.federated import Carrier, Engine, Job, Local, Report, Work
from fedloom.federated.engines._cluster import connected, failures, slots
from fedloom.models import attention as packed

__all__ = ["Ray"]

_log = logging.getLogger(__name__)

_AHEAD = 2  # waves sent to an actor: one that it trains, one that waits, so that it never does
_EARLY = 4  # waves for each actor that may be on their way or answered before their turn
_PATIENCE_S = 60.0  # after which those are named that still wait for a slot


@plugin("ray")
class Ray(Engine):
    """Trains the clients of a round on a Ray cluster: one owner's machines, all of which see everything."""

    needs: ClassVar[tuple[str, ...]] = ("ray",)
    starts_workers: ClassVar[bool] = True

    workers: Count = 0
    """Actors, each with a GPU or a CPU of the cluster, as `device` says; 0 takes all of them."""
    inner: Engine = field(default_factory=default(Engine, "cohort"))
    """What each actor runs on the clients that it is sent."""
    address: str = ""
    """Where a cluster is joined, as `ray start` tells it; left out: a local one that none but this machine reaches."""
    max_restarts: Count = 3
    """How often an actor that has died is started anew, and a job of its carried out once more."""

    def check(self) -> None:
        """Refuse actors that would start workers, and an address by which Ray would choose its own."""
        if self.inner.starts_workers:
            raise ConfigError(
                f"engine.inner: found '{self.inner.name}' in '{self.name}', allowed are 'sequential' and 'cohort'."
            )
        if self.address == "local" or self.address != self.address.strip():
            raise ConfigError(
                f"engine.address: found '{self.address}', allowed is what `ray start` tells, or '' for a local cluster."
            )

    def resolved(self, work: Work, *, n_clients: int) -> "Ray":
        """Return the engine with the inner one's choices made for an actor's share.

        How many actors there are is left open: a run may go on with others, and its numbers stay.
        """
        _, count = self.found(work)
        return replace(self, inner=self.inner.resolved(work, n_clients=-(-n_clients // count)))

    def found(self, work: Work) -> tuple[Any, int]:
        """Return the library, connected, and how many actors there will be; RunError where the cluster has too few."""
        ray, kind = connected(self.address), work.model.device.type
        there = slots(ray, "gpu" if kind == "cuda" else "cpu")
        if there < max(1, self.workers):
            raise RunError(
                f"engine.workers: found {self.workers}, the cluster has {there} slots for device '{kind}'; allowed is "
                "one worker each: lower it, or add machines."
            )
        return ray, self.workers or there

    def start(self, work: Work) -> Carrier:
        """Return a carrier that sends waves of jobs to actors; the actors end with it, the connection does not."""
        pool = _Pool(work, self)

        def carry(jobs: Iterable[Job]) -> Iterator[Report]:
            return pool.carry(jobs)

        return carry


@dataclass
class _Wave:
    """Jobs on their way."""

    answer: Any
    """What Ray hands over once they are carried out."""
    place: int
    """Which actor has them."""
    done: bool = False


class _Pool:
    """The actors of one training; they end when nobody holds it."""

    def __init__(self, work: Work, engine: Ray) -> None:
        self._ray, count = engine.found(work)
        self._size = engine.inner.wave_size()
        self._common: Local | None = None
        self._number, self._shipped = 0, None
        device = work.model.device
        options = {"num_gpus": 1, "num_cpus": 0} if device.type == "cuda" else {"num_cpus": 1}
        often = {"max_restarts": engine.max_restarts, "max_task_retries": engine.max_restarts}
        remote = self._ray.remote(_Actor).options(**options, **often)
        with failures(self._ray):
            sent = replace(work, model=replace(work.model, module=work.model.module.cpu()))
            # Held as long as the actors, and told with every wave: one that is started anew asks for it once more.
            self._load = [self._ray.put((Travelling(), sent, engine.inner, device.type, torch.get_num_threads()))]
            work.model.module.to(device)
            self._actors = [remote.remote() for _ in range(count)]
            weakref.finalize(self, _end, self._ray, self._actors)
            self._wait_for_slots()

    def carry(self, jobs: Iterable[Job]) -> Iterator[Report]:
        """Yield the reports in the order of the jobs, which are asked for as actors get through with them."""
        waves, flying = _waves(jobs, self._size), deque[_Wave]()
        while True:
            self._fill(flying, waves)
            if not flying:
                return
            if flying[0].done:
                yield from self._got(flying.popleft().answer)
            else:
                self._wait(flying)

    def _fill(self, flying: deque[_Wave], waves: Iterator[Sequence[Job]]) -> None:
        """Send waves until every actor has enough, or enough are on their way."""
        while len(flying) < _EARLY * len(self._actors):
            load = Counter(wave.place for wave in flying if not wave.done)
            place = min(range(len(self._actors)), key=lambda place: load[place])
            if load[place] >= _AHEAD or not (jobs := next(waves, ())):
                return
            flying.append(self._sent(jobs, place))

    def _sent(self, jobs: Sequence[Job], place: int) -> _Wave:
        local = jobs[0].local
        with failures(self._ray):
            if self._common is None or not _alike(self._common, local):
                self._common, self._number = local, self._number + 1
                self._shipped = self._ray.put((local.anchor, local.shared))
            own = [replace(job, local=Local({}, {}, job.local.memory)) for job in jobs]
            # In a list: Ray would read it out for every wave, the actor asks for it once a round.
            answer = self._actors[place].carry.remote(own, self._load, self._number, [self._shipped])
            return _Wave(answer, place)

    def _wait(self, flying: Iterable[_Wave]) -> None:
        """Wait until one more wave has been answered."""
        open_ = {wave.answer: wave for wave in flying if not wave.done}
        with failures(self._ray):
            answered, _ = self._ray.wait(list(open_), num_returns=1)
        for answer in answered:
            open_[answer].done = True

    def _got(self, answer: Any) -> Any:
        """Return what an actor has answered; raise what refused it."""
        with failures(self._ray):
            found = self._ray.get(answer)
        if isinstance(found, FedloomError):
            raise found
        return found

    def _wait_for_slots(self) -> None:
        """Wait until all actors have started; say so where that takes long, as others may hold the slots."""
        all_ = waiting = [actor.ready.remote(self._load) for actor in self._actors]
        while waiting:
            _, waiting = self._ray.wait(waiting, num_returns=len(waiting), timeout=_PATIENCE_S)
            if waiting:
                _log.warning("engine 'ray': %d of %d actors wait for a slot or start", len(waiting), len(all_))
        for started in all_:
            self._got(started)


def _end(ray: Any, actors: Sequence[Any]) -> None:
    for actor in actors if ray.is_initialized() else ():
        ray.kill(actor)


def _waves(jobs: Iterable[Job], size: int) -> Iterator[Sequence[Job]]:
    """Yield up to `size` neighbouring jobs at a time that start from the same shared numbers."""
    wave: list[Job] = []
    for job in jobs:
        if wave and (len(wave) == size or not _alike(wave[0].local, job.local)):
            yield wave
            wave = []
        wave.append(job)
    if wave:
        yield wave


def _alike(one: Local, other: Local) -> bool:
    """Return whether two clients hold the very same shared trees."""
    return one.anchor is other.anchor and one.shared is other.shared


class _Actor:
    """Carries out waves of jobs in a process of its own; Ray makes it."""

    def __init__(self) -> None:
        self._carrier: Carrier | None = None
        self._held = 0, Local({})

    def _started(self, load: Sequence[Any]) -> Carrier:
        """Return what carries jobs here, made when first asked for."""
        if self._carrier is not None:
            return self._carrier
        work: Work
        _, work, engine, device, threads = library("ray").get(load[0])
        torch.set_num_threads(threads)
        packed.register()
        work.model.module.to(torch.device(device))  # Ray shows an actor its own GPU alone
        self._carrier = carrier = engine.start(work)
        return carrier

    def ready(self, load: Sequence[Any]) -> FedloomError | None:
        """Return once jobs can be carried out, or what refuses that."""
        try:
            self._started(load)
        except FedloomError as error:
            return error

    def carry(
        self, jobs: Sequence[Job], load: Sequence[Any], number: int, shipped: Sequence[Any]
    ) -> list[Report] | FedloomError:
        """Return the reports of a wave, or what refused one of its jobs."""
        if self._held[0] != number:
            anchor, shared = library("ray").get(shipped[0])
            self._held = number, Local(anchor, shared)
        common = self._held[1]
        whole = [replace(job, local=replace(common, memory=job.local.memory)) for job in jobs]
        try:
            return list(self._started(load)(whole))
        except FedloomError as error:
            return error
