"""The reference engine: one client after another on one device, in one set of buffers; written to be read."""

from collections.abc import Iterable, Iterator

from fedloom.base.plugin import plugin
from fedloom.contracts.federated import Carrier, Engine, Job, Report, Work
from fedloom.federated.client import train_clients
from fedloom.federated.workspace import Workspace

__all__ = ["Sequential"]


@plugin("sequential")
class Sequential(Engine):
    """Trains clients one after another; memory does not grow with their number."""

    def start(self, work: Work) -> Carrier:
        """Return a carrier that trains each job when its report is asked for."""
        space = Workspace.of(work, width=1)

        def carry(jobs: Iterable[Job]) -> Iterator[Report]:
            return (report for job in jobs for report in train_clients(work, [job], space))

        return carry
