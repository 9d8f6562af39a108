"""The audit log: what a server sees of each client in each round, where `audit_log` asks for it.

    {"leg": "", "round": 3, "asked": [...], "absent": [...],
     "clients": [{"client": "a", "weight": 12.0, "norm": 0.4, "loss": 2.1, "scores": {}, "decision": "merged", ...}],
     "cosines": [[1.0, ...], ...], "measures": {...}, "decision": "merged", "reason": ""}

Norms and cosines are those of the rows as the codec gives them back to the server, of the slots that are aggregated by
weight: with noise in them where clients add it. A loss that clients withhold is null, and so is a norm where no row was
sent and a cosine with a row of zeros. Scores and decisions on single clients are the aggregator's. All rows of a round
are kept until it ends, which is why nobody has this log unasked. It is for whoever runs the server or the simulation.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from fedloom.base.files import plain
from fedloom.base.gram import cosines, gram
from fedloom.base.rows import RowMatrix
from fedloom.contracts.federated import Carrier, Job, Report
from fedloom.federated.rounds import ClientRecord, RoundRecord
from fedloom.runs.directory import AUDIT_LOG, RunDirectory
from fedloom.runs.stage import Stage

__all__ = ["AuditLog"]

_DIGITS = 6  # of a cosine


class AuditLog:
    """The audit log of one stage; where it is not asked for, no row is kept and nothing is written."""

    def __init__(self, directory: RunDirectory, stage: Stage, *, asked: bool) -> None:
        self._directory, self._stage, self._asked = directory, stage, asked
        self._rows: RowMatrix | None = None

    def carrier(self, carrier: Carrier) -> Carrier:
        """Return the carrier, its reports looked at once they have been taken in, and so been checked."""
        if not self._asked:
            return carrier

        def carry(jobs: Iterable[Job]) -> Iterator[Report]:
            self._rows = None
            for report in carrier(jobs):
                yield report
                self._keep(report)

        return carry

    def close(self, record: RoundRecord) -> Sequence[Sequence[float | None]]:
        """Write the line of a round that has ended, let go of its rows, and return their cosines; none if not asked."""
        if not self._asked:
            return ()
        line = self._line(record)
        self._directory.append(AUDIT_LOG, [plain(line)])
        self._rows = None
        return line["cosines"]

    def _keep(self, report: Report) -> None:
        plan, layout = self._stage.plan, report.layout
        if not layout.size:  # everything is private
            return
        row_P = plan.codec.decode(report.packet, layout.size)
        if apart := plan.rule.uniform_slots:
            row_P = row_P[~layout.columns(apart)]
        if self._rows is None:
            self._rows = RowMatrix(row_P, limit_bytes=plan.aggregator.matrix_bytes())
        self._rows.append(row_P)

    def _line(self, record: RoundRecord) -> dict[str, Any]:
        norms: list[float | None] = [None] * len(record.clients)
        told: list[list[float | None]] = []
        if self._rows is not None:
            gram_NN = gram(self._rows.rows_NP, exact=True)
            norms, told = gram_NN.diagonal().sqrt().tolist(), _rounded(cosines(gram_NN))
        came = {one.client for one in record.clients}
        took_part = came | {*record.absent}
        merged = came - record.left_out.keys()
        return {
            "leg": self._stage.name,
            "round": record.round,
            "asked": [client for client in self._stage.plan.clients if client in took_part],
            "absent": record.absent,
            "clients": [_told(one, norm, record) for one, norm in zip(record.clients, norms, strict=True)],
            "cosines": told,
            "measures": record.measures,
            "decision": "merged" if merged else "nothing merged",
            "reason": "" if merged else "every row was left out" if came else "no client reported",
        }


def _told(one: ClientRecord, norm: float | None, record: RoundRecord) -> dict[str, Any]:
    left_out = one.client in record.left_out
    return {
        "client": one.client,
        "weight": one.weight,
        "norm": norm,
        "loss": one.loss.value if one.loss.weight else None,
        "scores": record.scores.get(one.client, {}),
        "decision": "left out" if left_out else "merged",
        "reason": record.left_out.get(one.client, ""),
    }


def _rounded(cosine_NN: Tensor) -> list[list[float | None]]:
    return [[round(value, _DIGITS) for value in row_N] for row_N in cosine_NN.tolist()]
