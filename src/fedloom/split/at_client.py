"""A client of split training whose server is elsewhere: its messages go out, and it goes on once their answers come."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from fedloom.base.tree import Tree
from fedloom.contracts.federated import Carrier, Engine, Job, Report, Work
from fedloom.federated.client import train_clients
from fedloom.federated.workspace import Workspace
from fedloom.split.body import Seeds
from fedloom.split.carrier import Answers, Session, SplitSettings, splittable, with_kept
from fedloom.split.defences import Shield
from fedloom.split.ends import Ends
from fedloom.split.messages import Message

__all__ = ["AtClient", "Exchange", "Waiting"]

Exchange = Callable[[Message], Message]
"""Sends one message of a client to the server, and returns the answer."""

Waiting = Callable[[], AbstractContextManager[object]]
"""Lets others compute while a client waits for answers."""


@dataclass(frozen=True)
class _Elsewhere:
    """A server on another machine, for one client; it steps by itself."""

    exchange: Exchange
    threads: ThreadPoolExecutor
    """In which messages are under way: as many as there may be."""
    waiting: Waiting

    def forward(self, arrived: Sequence[Message], seeds: Seeds, lent: Tree, micro: int) -> Answers:
        """Send FWD."""
        return self._under_way(arrived)

    def backward(self, arrived: Sequence[Message], seeds: Seeds, micro: int) -> Answers:
        """Send GRAD."""
        return self._under_way(arrived)

    def step(self, lr: float) -> object:
        """Leave it to the server."""
        return None

    def _under_way(self, arrived: Sequence[Message]) -> Answers:
        futures = [self.threads.submit(self.exchange, one) for one in arrived]

        def answers() -> tuple[Sequence[Message], Tree]:
            with self.waiting():
                return [future.result() for future in futures], {}

        return answers


class AtClient(Engine):
    """Carries jobs to clients of this machine whose server is elsewhere, one after another."""

    def __init__(
        self, settings: SplitSettings, exchange: Exchange, secret: str = "", waiting: Waiting = nullcontext
    ) -> None:
        """Take the way to the server, and what it does not know: the noise that leaves here is drawn by it."""
        self._settings, self._exchange, self._secret, self._waiting = settings, exchange, secret, waiting

    def start(self, work: Work) -> Carrier:
        """Return a carrier that trains each job with the server's help; ConfigError for clients of several cuts."""
        model, settings = splittable(work.model), self._settings
        cut = settings.one_cut()
        ends, space = {cut: Ends.of(model, cut)}, Workspace.of(work, 1)

        def carry(jobs: Iterable[Job]) -> Iterator[Report]:
            for job in jobs:
                shield = Shield(settings.defences, (self._secret or work.plan.seed, job.round))
                shield.remember(job.client, job.local.memory)
                with ThreadPoolExecutor(settings.in_flight) as threads:
                    server, cuts = _Elsewhere(self._exchange, threads, self._waiting), {job.client: cut}
                    session = Session(model, work.task, server, ends, cuts, settings, (work.plan.seed,), shield=shield)
                    (report,) = train_clients(work, [job], space, session.slope)
                yield with_kept(report, session)

        return carry
