"""Entry i: a round of small classifiers of pictures, clients stacked, one after another, and as a plain torch loop.

    python -m benchmarks.images [--device cuda] [--quick]

Same weights at the start, pictures, steps, batch and rate on every side. That all of them learn the same is checked by
what their models lose on pictures that no client owns. And the peak memory of rounds of a residual network against
the number of clients, with the width that the engine chooses; every number in a fresh process, on the CPU alone, as a
GPU takes all of these clients at once.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks._common import (
    Figure,
    Sample,
    Settings,
    Target,
    alternate,
    entry,
    forget_peak,
    in_fresh_process,
    peak_bytes,
    ratio,
    report,
)
from benchmarks._learnt import HeldOutLoss
from benchmarks._ours import Rounds
from benchmarks._pictures import PictureShape, picture_table, picture_tensors
from benchmarks._plain_rounds import Batches, PlainRounds, shuffled
from fedloom.federated.engines.cohort import Cohort

__all__ = ["compare", "main"]

MLP = PictureShape(name="mlp", model={"name": "mlp", "hidden": [64]})
CNN = PictureShape(name="small_cnn", model={"name": "small_cnn"})
RESNET = PictureShape(name="resnet20", model={"name": "resnet", "depth": 20}, inputs=(3, 32, 32), steps=2, batch=16)
OURS, ONE_BY_ONE, PLAIN = "cohort", "sequential", "plain torch loop"
GOALS = {ONE_BY_ONE: 2.0, PLAIN: 3.0}
CLIENTS = (4, 16)
"""Of the residual network: both are more than are trained together."""
TOGETHER = "all together"
"""The most clients with a width of as many, which shows what the engine's choice saves."""


def main(settings: Settings) -> list[Figure]:
    """Compare a round's time for every small model, and its memory for numbers of clients."""
    if settings.part:
        return report(_measured(settings.part, settings))
    figures: list[Figure] = []
    for shape in (MLP, CNN):
        with tempfile.TemporaryDirectory() as folder:
            figures += compare(_quick(shape, settings), Path(folder), settings)
    return [*figures, *_memory(settings)] if settings.device == "cpu" else figures


def _quick(shape: PictureShape, settings: Settings) -> PictureShape:
    return replace(shape, clients=3, steps=4) if settings.quick else shape


# ------------------------------------------------------------------------------------------------------- time


def compare(shape: PictureShape, folder: Path, settings: Settings) -> list[Figure]:
    """Return what other sides take over all clients stacked; RuntimeError where they did not learn the same."""
    engines = {OURS: {"name": "cohort", "width": shape.clients}, ONE_BY_ONE: {"name": "sequential"}}
    ours = {name: Rounds(picture_table(shape, folder, settings, engine=engine)) for name, engine in engines.items()}
    plain = PlainRounds(ours[OURS].work.model.module, _loaders(shape), lr=shape.lr)
    held_out = HeldOutLoss(shape, plain.module)
    torch.manual_seed(0)  # the loaders shuffle by it
    sides: dict[str, Rounds | PlainRounds] = {**ours, PLAIN: plain}
    seconds = alternate(sides, repeats=settings.repeats(7), settings=settings)
    _check_examples({name: side.examples for name, side in sides.items()}, shape)
    losses = {name: held_out.of(side.params) for name, side in sides.items()}
    held_out.check(losses)
    work = {"steps": shape.steps, "batch": shape.batch, "examples": plain.examples, "loss before": held_out.start}
    work |= {f"loss of {name}": loss for name, loss in losses.items()}
    return [_figure(shape, name, seconds, work, settings) for name in GOALS]


def _loaders(shape: PictureShape) -> list[Batches]:
    drawn = [picture_tensors(shape, shape.examples, client) for client in range(shape.clients)]
    return [shuffled(inputs, label_N, shape.batch) for inputs, label_N in drawn]


def _check_examples(seen: Mapping[str, int], shape: PictureShape) -> None:
    if set(seen.values()) != {shape.clients * shape.examples}:
        raise RuntimeError(f"{shape.name}: the sides trained on unequal numbers of pictures: {seen}")


def _figure(
    shape: PictureShape, name: str, seconds: Mapping[str, Sample], work: Mapping[str, int | float], settings: Settings
) -> Figure:
    per_step = 1000 / (shape.clients * shape.steps)
    return ratio(
        "i",
        f"round, {shape.name}, {shape.clients} clients: {name} over {OURS}",
        ours=seconds[OURS].scaled(per_step, "ms per client step"),
        other=seconds[name].scaled(per_step, "ms per client step"),
        target=Target(">=", GOALS[name]) if settings.device == "cpu" else None,
        work=work,
    )


# ----------------------------------------------------------------------------------------------------- memory


def _memory(settings: Settings) -> list[Figure]:
    """Return the peak with many clients over that with few: of the process, and of what rounds add to it."""
    few, many = map(str, CLIENTS)
    found = {part: in_fresh_process("benchmarks.images", part, settings) for part in (few, many, TOGETHER)}
    work: dict[str, int | float | str] = {f"width with {part} clients": found[part]["width"] for part in (few, many)}
    work[f"{many} clients {TOGETHER} add"] = f"{found[TOGETHER]['added_bytes'] / 2**20:.0f} MiB"

    def figure(key: str, what: str, target: Target | None) -> Figure:
        ours, other = (found[part][key] / 2**20 for part in (many, few))
        return Figure(
            entry="i",
            what=f"{what}, {RESNET.name}: {many} clients over {few}",
            value=ours / other,
            target=target,
            ours=Sample((ours,), "MiB"),
            other=Sample((other,), "MiB"),
            work=work,
        )

    return [
        figure("peak_bytes", "peak memory of a round", Target("<=", 1.2)),
        figure("added_bytes", "memory that a round adds to what is held before it", None),
    ]


def _measured(part: str, settings: Settings) -> dict[str, float]:
    """Return the peak of rounds of so many clients: together as many trainings, whatever the number."""
    clients = max(CLIENTS) if part == TOGETHER else int(part)
    shape = replace(RESNET, clients=clients, steps=1 if settings.quick else RESNET.steps)
    engine = {"name": "cohort", "width": clients if part == TOGETHER else 0}
    with tempfile.TemporaryDirectory() as folder:
        rounds = Rounds(picture_table(shape, Path(folder), settings, engine=engine))
    before = forget_peak(settings)
    for _ in range(max(CLIENTS) // clients):
        rounds()
    peak = peak_bytes(settings)
    return {
        "peak_bytes": peak,
        "added_bytes": peak - before,
        "width": rounds.engine.width if isinstance(rounds.engine, Cohort) else 1,
    }


if __name__ == "__main__":
    entry(main)
