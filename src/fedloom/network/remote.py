"""The engine whose clients are on machines of their own: it hands jobs to a hub and takes reports in their order."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from fedloom.base.tree import Layout, Slots
from fedloom.contracts.federated import Carrier, Engine, Job, Local, Plan, Report, Work
from fedloom.federated.rounds import State
from fedloom.network.hub import Hub
from fedloom.network.jobs import JobFrame, body_of, row_shape
from fedloom.network.open_round import OpenRound
from fedloom.runs.measure import OwnScores
from fedloom.split.body import Middle
from fedloom.split.carrier import SplitSettings, splittable, with_middle
from fedloom.split.lockstep import Lockstep

__all__ = ["Remote", "RemoteSplit"]


_MOST_BYTES = 1 << 30
"""Of a message of a split step, where the task bounds no example."""


class Remote(Engine):
    """Carries jobs to nodes on other machines, through a hub; what they compute is what any engine computes."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def start(self, work: Work) -> Carrier:
        """Return a carrier whose reports come from nodes."""
        hub, plan = self._hub, work.plan
        shape: list[tuple[Layout, int]] = []

        def carry(jobs: Iterable[Job]) -> Iterator[Report]:
            asked = iter(jobs)
            first = next(asked, None)
            if first is None:
                return
            piece = hub.keep_body(body_of(first.local))
            frames = {job.client: JobFrame.of(hub.run, job, piece) for job in chain([first], asked)}
            if not shape:
                shape.append(row_shape(plan, first.local.anchor[""]))
            need = min(plan.enough or len(frames), len(frames))
            yield from self._reports(work, first, OpenRound(first.round, plan, *shape[0], piece, frames, need))

        return carry

    def _reports(self, work: Work, first: Job, now: OpenRound) -> Iterator[Report]:
        self._hub.open(now)
        yield from self._hub.reports()

    def ask(self, names: tuple[str, ...], plan: Plan, state: State, phase: str) -> dict[str, OwnScores]:
        """Return what the clients say of a state on what they hold out, by client."""
        piece = self._hub.keep_body(body_of(Local({"": state.params_P})))
        frames = {one: JobFrame(self._hub.run, one, state.round, 0.0, piece, phase) for one in plan.clients}
        layout = Layout(())
        self._hub.open(OpenRound(state.round, plan, layout, 0, piece, frames, len(frames), phase=phase, names=names))
        return self._hub.scores()


class RemoteSplit(Remote):
    """Carries jobs of a split model: while clients train, their steps are computed together with the server's part."""

    def __init__(self, hub: Hub, settings: SplitSettings, folder: Path) -> None:
        """Keep what comes of a round's steps in a folder."""
        super().__init__(hub)
        self._settings, self._folder = settings, folder

    def start(self, work: Work) -> Carrier:
        """Return a carrier whose reports come from nodes; the model's middle is trained here."""
        self._cut, self._model = self._settings.one_cut(), splittable(work.model)
        self._middle = Middle.of(self._model, (self._cut,))
        return super().start(work)

    def _reports(self, work: Work, first: Job, now: OpenRound) -> Iterator[Report]:
        plan, settings, clients = work.plan, self._settings, tuple(now.jobs)
        body = settings.body(self._middle, dict.fromkeys(plan.clients, self._cut), plan.local, plan.clients)
        body.load(first.middle)
        lockstep = now.lockstep = Lockstep(
            body=body,
            clients=clients,
            seed=(plan.seed, first.round),
            n_micro=plan.local.accumulation,
            lr=first.lr * settings.rate(plan.local.lr),
            folder=self._folder / f"round_{first.round:05d}",
            most_bytes=settings.message_bytes(self._model.width, plan.local.batch, work.task.longest()) or _MOST_BYTES,
            in_flight=settings.in_flight,
            window_s=settings.window_s,
            deadline_s=self._hub.settings.deadline_s,
            lost=partial(self._hub.out_of_step, now),
            joined=partial(self._hub.back_in_step, now),
            broken=self._hub.fail,
            noted=self._hub.note_batch,
            repeated=partial(self._hub.meters.add, "repeats", kind="step"),
        )
        told: list[Report] = []
        for report in super()._reports(work, first, now):
            told.append(replace(report, traffic=lockstep.tally.of(report.client)))
        lockstep.close()
        yield from _with_middle(told, with_middle(first.middle, body.kept()))


def _with_middle(told: list[Report], middle: Slots) -> Iterator[Report]:
    """Yield reports, the last one that counts with what became of the server's part."""
    last = max((at for at, report in enumerate(told) if not report.refused), default=-1)
    for at, report in enumerate(told):
        yield replace(report, middle=middle) if at == last else report
