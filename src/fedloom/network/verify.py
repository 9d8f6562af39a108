"""The result of a served run, computed once more from the packets that its server kept: the same bytes, or not.

Across machines of unlike arithmetic nobody can repeat what nodes computed. What the server made of it is a function of
the packets in the order of the jobs, and that is what is held to: same packets, same result.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fedloom.base.errors import RunError
from fedloom.base.files import file_name, file_sha256
from fedloom.base.mean import Mean
from fedloom.base.tree import flatten
from fedloom.contracts.federated import Job, Plan, Report
from fedloom.federated.rounds import begin, train
from fedloom.network.desk import PACKETS, kept_in
from fedloom.network.jobs import as_packet, report_from, row_shape
from fedloom.runs.apart import prepare_server
from fedloom.runs.directory import RunDirectory
from fedloom.runs.tuning import TuningRun, run_of

__all__ = ["verified"]


def verified(directory: RunDirectory) -> list[str]:
    """Return what was compared, a line each; RunError where the result is not that of the packets."""
    run = run_of(directory)
    _refuse(directory, run)
    ready = prepare_server(run, tuple(directory.table("manifest.json")["clients"]))
    stage = ready.stages[0]
    start, carrier = begin(stage.plan, flatten(ready.shared).cpu()), _Kept(directory.path / PACKETS, stage.plan)
    *_, (state, _) = train(stage.plan, start, carrier, stage.server)
    rounds = state.round
    with tempfile.TemporaryDirectory() as folder:
        run.model.save(ready.model, ready.layout.tree(state.params_P) | ready.private, folder + "/adapter")
        made = sorted(Path(folder, "adapter").glob("*.safetensors"))
        return [_compared(directory.path / "adapter" / path.name, path, rounds) for path in made]


def _refuse(directory: RunDirectory, run: TuningRun) -> None:
    """Refuse runs whose result is not a function of packets that were kept."""
    if not directory.complete or not (directory.path / PACKETS).is_dir():
        raise RunError(
            f"{directory.path}: is not complete, or its server kept no packets; set deployment.keep_packets = true."
        )
    if run.refine or (run.privacy.covers().at_server and not run.privacy.deterministic()):
        raise RunError(
            f"{directory.path}: its server drew noise, or refined the result, which no packet tells; there is nothing "
            "to verify it by."
        )


class _Kept:
    """Carries jobs to what was kept of their answers."""

    def __init__(self, packets: Path, plan: Plan) -> None:
        self._packets, self._plan = packets, plan

    def __call__(self, jobs: Iterable[Job]) -> Iterator[Report]:
        """Yield the kept reports of a round, and the sum, where rows came as one."""
        last: Job | None = None
        for job in jobs:
            last = job
            found = self._read(job.round, file_name(job.client))
            if found is not None and "refused" not in found[0]:
                yield report_from(*found)
        total = self._read(last.round, "sum") if last else None
        if last is not None and total is not None:
            layout, _ = row_shape(self._plan, last.local.anchor[""])
            yield Report("", as_packet(total[1]), layout, 1.0, 1, 0, Mean(), {}, 0, sum_of=int(total[0]["sum_of"]))

    def _read(self, round: int, name: str) -> tuple[dict[str, Any], bytes] | None:
        path = kept_in(self._packets, round, name)
        if not path.is_file():
            return None
        try:
            return json.loads(path.with_suffix(".json").read_text(encoding="utf-8")), path.read_bytes()
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read ({error}); restore it from a copy.") from error


def _compared(theirs: Path, made: Path, rounds: int) -> str:
    if not theirs.is_file() or file_sha256(theirs) != file_sha256(made):
        raise RunError(f"{theirs}: is not what the packets of {rounds} rounds come to.")
    return f"{theirs}: sha256 {file_sha256(made)}, from the packets of {rounds} rounds"
