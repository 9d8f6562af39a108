"""Entry e: peak memory of a run against its number of clients; every number in a fresh process.

    python -m benchmarks.memory [--device cuda] [--quick]

All clients take part in each round, ten at a time. The adapter is large beside the base (5 MB), so that keeping
even a few per client would show: 747 of them are 3.7 GB. And of one round on a real model's shape, beside the published
loop, which computes blocks once more for their gradients.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks._common import Figure, Sample, Settings, Target, entry, in_fresh_process, peak_bytes, report
from benchmarks._ours import Rounds, table_of
from benchmarks._shapes import SMOLLM2, TINY, Lengths, Shape
from benchmarks._trainers import PublishedRound, TrlClient

__all__ = ["main"]

CLIENTS = (20, 100, 747)
WIDTH = 10
TRAININGS = 100
"""Local trainings at least: the allocator takes some until it asks for no more."""
SHAPE = Shape(
    name="memory",
    width=256,
    depth=4,
    inner=688,
    heads=4,
    vocabulary=1280,
    rank=64,
    steps=1,
    batch=1,
    lengths=Lengths(prompt=(6, 6), answer_median=7.0, answer_sigma=0.0, longest=13),
)


def main(settings: Settings) -> list[Figure]:
    """Measure the peak memory of some rounds for every number of clients."""
    if settings.part.isdigit():
        return report(_measure(int(settings.part), settings))
    if settings.part:
        return report({"peak_bytes": _one_round(settings.part, settings)})
    counts = (20, 40) if settings.quick else CLIENTS
    found = {count: in_fresh_process("benchmarks.memory", str(count), settings) for count in counts}
    peaks = {count: values["peak_bytes"] / 2**20 for count, values in found.items()}
    first, last = counts[0], counts[-1]
    work: dict[str, int | float | str] = {f"{count} clients": f"{peak:.0f} MiB" for count, peak in peaks.items()}
    work["adapter"] = f"{found[last]['row_bytes'] / 2**20:.1f} MiB"
    work["supervised tokens of a round"] = found[last]["supervised_tokens"]
    return [
        Figure(
            entry="e",
            what=f"peak memory with {last} clients over {first}",
            value=max(peaks.values()) / peaks[first],
            target=Target("<=", 1.05),
            ours=Sample((peaks[last],), "MiB"),
            other=Sample((peaks[first],), "MiB"),
            work=work,
        ),
        *_on_a_real_shape(settings),
    ]


def _on_a_real_shape(settings: Settings) -> list[Figure]:
    """Return the published loop's peak over ours: plain, with blocks computed once more, the same in bfloat16."""
    sides = ("published", "plain", "recomputed", "recomputed-bfloat16")
    found = {side: in_fresh_process("benchmarks.memory", side, settings)["peak_bytes"] / 2**20 for side in sides}
    return [
        Figure(
            entry="e",
            what=f"peak memory of a round, {SMOLLM2.name} model: published loop over fedloom, {side}",
            value=found["published"] / found[side],
            target=Target(">=", 1.0) if side == "recomputed" else None,
            ours=Sample((found[side],), "MiB"),
            other=Sample((found["published"],), "MiB"),
            work={"clients": SMOLLM2.clients, "batch": SMOLLM2.batch},
        )
        for side in sides[1:]
    ]


def _one_round(side: str, settings: Settings) -> int:
    shape = replace(TINY if settings.quick else SMOLLM2, dtype="bfloat16" if side.endswith("bfloat16") else "float32")
    with tempfile.TemporaryDirectory() as folder:
        if side == "published":
            PublishedRound(TrlClient(shape, Path(folder), settings))()
        else:
            table = table_of(shape, Path(folder), settings)
            table["model"]["gradient_checkpointing"] = side != "plain"
            Rounds(table)()
    return peak_bytes(settings)


def _measure(clients: int, settings: Settings) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        engine = {"name": "cohort", "width": WIDTH}
        rounds = Rounds(table_of(replace(SHAPE, clients=clients), Path(folder), settings, engine=engine))
        for _ in range(max(1, TRAININGS // clients)):
            rounds()
    return {
        "peak_bytes": peak_bytes(settings),
        "row_bytes": 4 * rounds.ready.layout.size,
        "supervised_tokens": rounds.supervised_tokens,
    }


if __name__ == "__main__":
    entry(main)
