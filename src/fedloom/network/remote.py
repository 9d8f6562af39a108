"""The engine whose clients are on machines of their own: it hands jobs to a hub and takes reports in their order."""

from collections.abc import Iterable, Iterator
from itertools import chain

from fedloom.base.tree import Layout
from fedloom.contracts.federated import Carrier, Engine, Job, Local, Plan, Report, Work
from fedloom.federated.rounds import State
from fedloom.network.hub import Hub
from fedloom.network.jobs import JobFrame, body_of, row_shape
from fedloom.network.open_round import OpenRound
from fedloom.runs.measure import OwnScores

__all__ = ["Remote"]


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
            hub.open(OpenRound(first.round, plan, *shape[0], piece, frames, need))
            yield from hub.reports()

        return carry

    def ask(self, names: tuple[str, ...], plan: Plan, state: State, phase: str) -> dict[str, OwnScores]:
        """Return what the clients say of a state on what they hold out, by client."""
        piece = self._hub.keep_body(body_of(Local({"": state.params_P})))
        frames = {one: JobFrame(self._hub.run, one, state.round, 0.0, piece, phase) for one in plan.clients}
        layout = Layout(())
        self._hub.open(OpenRound(state.round, plan, layout, 0, piece, frames, len(frames), phase=phase, names=names))
        return self._hub.scores()
