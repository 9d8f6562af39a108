"""What one client costs, from cases that differ in one number, and what a million of them take by that."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.scale._cases import Measured

__all__ = ["Costs", "costs_of", "markdown", "row", "table"]

PLANNED = 1_000_000
PLANS = ((1_000, 1_000), (10_000, 1_000), (100_000, 100), (PLANNED, 10))
"""Clients asked in a round, and rounds."""
MEASURED = (
    "engine",
    "clients",
    "asked in a round",
    "rounds",
    "ms a client and round",
    "ms of processor",
    "of it server",
    "peak, MiB",
    "above the start, MiB",
)
PLAN = (
    "clients",
    "asked in a round",
    "rounds",
    "core hours",
    "server memory, GiB",
    "ledger, GB",
    "schedule, GB",
    "uploads, GB",
)


@dataclass(frozen=True)
class Costs:
    """What one client costs, from cases that differ in one number."""

    known_bytes: float
    """Server memory of a client that is not asked."""
    asked_bytes: float
    """Server memory of a client of the round, until the round has ended."""
    base_bytes: float
    """Server memory without clients."""
    data_ms: float
    """Of processor, as what follows."""
    train_ms: float
    server_ms: float
    ledger_bytes: float
    schedule_bytes: float
    upload_bytes: int
    ray_server_ms: float | None
    """Of the server, where actors train."""
    ray_client_ms: float | None
    """By the clock, where actors train."""

    @property
    def client_ms(self) -> float:
        """A client in a round, in one process."""
        return self.data_ms + self.train_ms + self.server_ms


def costs_of(cases: Sequence[Measured]) -> Costs:
    """Return the constants: slopes between the smallest and the largest case, times of the case with most trainings."""
    own = [case for case in cases if case.engine == "cohort" and case.clients < PLANNED]
    least = min(case.asked for case in own)
    part = [case for case in own if case.asked == least and case.rounds == own[0].rounds]
    most = max(own, key=lambda case: case.client_rounds)
    few, many = min(part, key=lambda case: case.clients), max(part, key=lambda case: case.clients)
    known = (many.peak_bytes - few.peak_bytes) / (many.clients - few.clients)
    whole = max(own, key=lambda case: case.asked)
    asked = (whole.peak_bytes - few.peak_bytes - known * (whole.clients - few.clients)) / (whole.asked - few.asked)
    ray = next((case for case in cases if case.engine == "ray"), None)
    return Costs(
        known_bytes=known,
        asked_bytes=asked,
        base_bytes=few.peak_bytes - known * few.clients - asked * few.asked,
        data_ms=most.ms(most.data_s),
        train_ms=most.ms(most.carried_s - most.data_s),
        server_ms=most.server_ms,
        ledger_bytes=most.ledger_bytes / most.client_rounds,
        schedule_bytes=most.schedule_bytes / most.client_rounds,
        upload_bytes=most.upload_bytes,
        ray_server_ms=ray.ms(ray.cpu_s) if ray else None,
        ray_client_ms=ray.ms(ray.wall_s) if ray else None,
    )


def markdown(done: Mapping[str, Any]) -> str:
    """Return what was measured, the constants and the plan: every number of docs/scale.md."""
    cases, costs = [Measured(**case) for case in done["cases"]], Costs(**done["costs"])
    facts = ", ".join(f"{key} {value}" for key, value in done["machine"].items())
    measured = table(MEASURED, [row(case) for case in cases])
    checked = [_checked(case, costs) for case in cases if case.clients == PLANNED]
    head = f"Measured in {done['wall_s']:.0f} s with {facts}."
    parts = [head, measured, *_constants(costs), *_plan(costs), *checked]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def row(case: Measured) -> tuple[str, ...]:
    """Return the cells of a case."""
    times = f"{case.ms(case.wall_s):.3f}", f"{case.ms(case.cpu_s):.3f}", f"{case.server_ms:.3f}"
    above = case.peak_bytes - case.held_bytes
    sizes = f"{case.peak_bytes / 2**20:.0f}", f"{above / 2**20:.1f}"
    return case.engine, f"{case.clients:,}", f"{case.asked:,}", str(case.rounds), *times, *sizes


def _constants(costs: Costs) -> Iterator[str]:
    yield (
        f"A client in a round takes {costs.client_ms:.3f} ms of one core: {costs.data_ms:.3f} to make its rows, "
        f"{costs.train_ms:.3f} to train, {costs.server_ms:.3f} at the server. It sends {costs.upload_bytes:,} bytes, "
        f"and is {costs.ledger_bytes:.0f} bytes of the ledger and {costs.schedule_bytes:.0f} of the schedule."
    )
    yield (
        f"In the server's memory a client that is known is {costs.known_bytes:.0f} bytes, one that is asked "
        f"{costs.asked_bytes:.0f} more until its round has ended; all the rest is {costs.base_bytes / 2**20:.0f} MiB."
    )
    if costs.ray_server_ms is not None and costs.ray_client_ms is not None:
        yield (
            f"On Ray, with all actors on the same cores, a client in a round takes {costs.ray_client_ms:.3f} ms of "
            f"wall time, and {costs.ray_server_ms:.3f} ms of the server's processor: to send its job, to take its "
            "report and to add it up."
        )


def _plan(costs: Costs) -> Iterator[str]:
    """Yield what a training of a million clients takes by these constants."""
    yield table(PLAN, [_planned(costs, asked, rounds) for asked, rounds in PLANS])
    if costs.ray_server_ms is None:
        return
    actors = (costs.data_ms + costs.train_ms) / costs.ray_server_ms
    hours = PLANNED * costs.ray_server_ms / 3.6e6
    yield (
        f"By its processor time the server keeps up with {actors:.1f} actors that train clients as small as these: "
        f"however many there are, a round of all {PLANNED:,} takes it {hours:.2f} hours. Clients whose training takes "
        f"a thousand times longer keep {1000 * actors:,.0f} actors busy."
    )


def _memory_bytes(costs: Costs, asked: int) -> float:
    """Return what the server of the plan holds at most."""
    return costs.base_bytes + PLANNED * costs.known_bytes + asked * costs.asked_bytes


def _checked(case: Measured, costs: Costs) -> str:
    planned, found = _memory_bytes(costs, case.asked) / 2**20, case.peak_bytes / 2**20
    return (
        f"The plan is computed, not run, but for one case: {case.clients:,} clients of whom {case.asked:,} are asked, "
        f"in {case.rounds} rounds. Memory of the server: {planned:.0f} MiB by the constants, {found:.0f} measured; "
        f"milliseconds of processor: {costs.client_ms:.3f} by the constants, {case.ms(case.cpu_s):.3f} measured."
    )


def _planned(costs: Costs, asked: int, rounds: int) -> tuple[str, ...]:
    trainings = asked * rounds
    disk = [trainings * each / 1e9 for each in (costs.ledger_bytes, costs.schedule_bytes, costs.upload_bytes)]
    numbers = trainings * costs.client_ms / 3.6e6, _memory_bytes(costs, asked) / 2**30, *disk
    return f"{PLANNED:,}", f"{asked:,}", f"{rounds:,}", *(f"{number:.2f}" for number in numbers)
