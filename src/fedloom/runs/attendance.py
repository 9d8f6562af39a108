"""Who reports in a round: written down before rows are merged, and held to where the round is made again.

A round that was merged and lost with the process may have been seen by somebody; made again with other clients it would
be another round. Clients that are `absent` on purpose stand for those that a deployment loses.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from fedloom.base.errors import RunError
from fedloom.base.files import write_atomic
from fedloom.contracts.federated import Carrier, Job, Plan, Report
from fedloom.runs.directory import RunDirectory

__all__ = ["Absent", "Attendance"]

Absent = Mapping[int, Collection[str]]
"""Clients that do not report, by round."""

_FILE = "attendance.json"


class Attendance:
    """The attendance of one stage's rounds; without a `plan.min_clients` all must come, and nothing is written."""

    def __init__(self, directory: RunDirectory, stage: int, plan: Plan, absent: Absent) -> None:
        self._path, self._stage, self._absent = directory.path / _FILE, stage, absent
        self._partial = plan.min_clients > 0
        # A round that was closed and not saved is the first of a run that goes on, and of no other.
        known = self._partial and self._path.is_file()
        self._last: dict[str, Any] = directory.table(_FILE) if known else {}
        if self._last and not {"leg", "round", "clients"} <= self._last.keys():
            raise RunError(f"{self._path}: is not what fedloom wrote; restore it from a copy or start a new run.")

    def carrier(self, carrier: Carrier) -> Carrier:
        """Return the carrier without the jobs of those that do not come."""

        def carry(jobs: Iterable[Job]) -> Iterator[Report]:
            return carrier(job for job in jobs if self._comes(job))

        return carry

    def close(self, round: int, came: Sequence[str]) -> None:
        """Write down who came."""
        if self._partial:
            write_atomic(self._path, json.dumps({"leg": self._stage, "round": round, "clients": list(came)}))

    def _comes(self, job: Job) -> bool:
        if self._last and (self._last["leg"], self._last["round"]) == (self._stage, job.round):
            return job.client in self._last["clients"]
        return job.client not in self._absent.get(job.round, ())
