"""A round under way at the server, what a node is told of its report, and what of a report is refused."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedloom.base.errors import DataError
from fedloom.base.rows import is_finite
from fedloom.base.shown import shown
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Plan, Report
from fedloom.network.jobs import JobFrame, layout_from, report_from
from fedloom.network.pieces import Piece
from fedloom.network.summing import Summing
from fedloom.runs.measure import OwnScores
from fedloom.split.lockstep import Lockstep

__all__ = ["REPEATS", "Deadline", "OpenRound", "Verdict", "check_header", "check_row"]

REPEATS = 3
"""How often a round that too few have answered by its deadline is waited for once more."""


@dataclass(frozen=True)
class Verdict:
    """What a node is told of its report: taken, wanted from a byte on, closed, or refused with a reason."""

    kind: str
    start: int = 0
    reason: str = ""

    def header(self) -> dict[str, Any]:
        """Return it as a header."""
        return {"kind": self.kind, "start": self.start, "reason": self.reason}


@dataclass
class OpenRound:
    """A round under way."""

    round: int
    plan: Plan
    layout: Layout
    packet_bytes: int
    body: Piece
    """What its jobs' nodes fetch."""
    jobs: dict[str, JobFrame]
    need: int
    """Reports with which it closes."""
    phase: str = ""
    """Of an evaluation, which one; "" of a round of training."""
    names: tuple[str, ...] = ()
    """Of the scores that are asked for."""
    lockstep: Lockstep | None = None
    """What computes a split round's steps with its clients."""
    scores: dict[str, OwnScores] = field(default_factory=dict[str, OwnScores])
    headers: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    came: set[str] = field(default_factory=set[str])
    refused: dict[str, str] = field(default_factory=dict[str, str])
    declined: dict[str, str] = field(default_factory=dict[str, str])
    """Why clients do not take part, as their nodes say: they may still come."""
    closed: bool = False
    summing: Summing | None = None
    """The secure sum under way, where the server sees the sum of the rows alone."""
    attempt: int = 0
    unwilling: set[str] = field(default_factory=set[str])
    """Who has said no to this attempt."""
    masked: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """What was announced of masked rows, by client."""

    @property
    def hidden(self) -> bool:
        """Whether rows come as their sum alone."""
        return self.plan.aggregator.sum_only and not self.phase


class Deadline:
    """When a round is over, and how often it is waited for once more."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._left = seconds, REPEATS
        self._end_s = time.monotonic() + seconds if seconds else float("inf")

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return time.monotonic() >= self._end_s

    @property
    def left_s(self) -> float:
        """Seconds until then."""
        return max(0.01, self._end_s - time.monotonic())

    def again(self) -> bool:
        """Begin to wait once more; return whether that was allowed."""
        self._left -= 1
        self._end_s = time.monotonic() + self._seconds
        return self._left >= 0


def check_header(now: OpenRound, job: JobFrame, header: Mapping[str, Any], max_weight: float) -> None:
    """Refuse a report by what its header says, before a byte of it is taken."""
    report = report_from(header, b"")
    if report.client != job.client:
        raise DataError(f"found a report of client '{shown(report.client)}' for a job of '{job.client}'.")
    if layout_from(header.get("layout")) != now.layout:
        raise DataError("its row has another layout than this run's rows.")
    allowed = 0 if now.hidden else now.packet_bytes
    if header["size"] != allowed:
        raise DataError(f"found a packet of {header['size']} bytes, allowed are {allowed}.")
    private = now.plan.mechanism.covers().private
    if report.weight <= 0 or (private and report.weight != 1) or (max_weight and report.weight > max_weight):
        weights = "1" if private else f"above 0{f' and at most {max_weight:g}' if max_weight else ''}"
        raise DataError(f"found a weight of {report.weight:g}, allowed is {weights}.")
    if not private and report.n_examples < 1:
        raise DataError("found no examples.")


def check_row(now: OpenRound, report: Report, max_norm: float) -> None:
    """Refuse a row that is not finite, or longer than rows may be."""
    if not report.layout.size or now.hidden:
        return
    row_P = now.plan.codec.decode(report.packet, report.layout.size)
    if not is_finite(row_P):
        raise DataError("its row holds NaN or infinity.")
    norm = float(row_P.norm())
    if max_norm and norm > max_norm and not now.plan.mechanism.covers().at_server:
        raise DataError(f"found a row of norm {norm:g}, allowed is {max_norm:g} (deployment.max_norm).")
