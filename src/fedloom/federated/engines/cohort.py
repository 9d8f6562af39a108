"""Many clients at once on one device: their adapters stacked along a leading axis over one frozen base.

The base runs once over the packed examples of all clients of a cohort; only the low-rank parts know the client axis.
What a client computes does not depend on who shares its cohort: it agrees with `sequential` up to the rounding of
sums taken in another order (tests/federated/test_cohort.py).
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import Count, plugin
from fedloom.contracts.federated import Carrier, Engine, Job, Report, Work
from fedloom.federated.client import train_clients
from fedloom.federated.engines._memory import room_for
from fedloom.federated.workspace import Workspace

__all__ = ["Cohort"]


@plugin("cohort")
class Cohort(Engine):
    """Trains up to `width` clients together; more come in waves."""

    width: Count = 0
    """Clients trained together; 0 takes as many as pay off and fit into half of the free memory."""

    def wave_size(self) -> int:
        """Return the width."""
        return self.width or 1

    def resolved(self, work: Work, *, n_clients: int) -> "Cohort":
        """Return the engine with its width chosen; a width that does not fit is refused."""
        fits, pays = room_for(work)
        if min(self.width, n_clients) > max(fits, 1):
            raise ConfigError(
                f"engine.width: found {self.width}, the largest that fits into the free memory is {fits}; lower it, "
                "local.batch or task.max_length."
            )
        if self.width:
            return self
        n_waves = -(-n_clients // max(1, min(fits, pays)))
        return replace(self, width=-(-n_clients // n_waves))  # waves of like size

    def start(self, work: Work) -> Carrier:
        """Return a carrier that trains a wave of jobs when its first report is asked for."""
        width = min(self.wave_size(), len(work.shards))
        space = Workspace.of(work, width)

        def carry(jobs: Iterable[Job]) -> Iterator[Report]:
            waiting = iter(jobs)
            while wave := list(islice(waiting, width)):
                yield from train_clients(work, wave, space)

        return carry
