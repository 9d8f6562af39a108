"""Entry a: a federated round as OpenFedLLM runs it, and with `transformers.Trainer`, against fedloom.

    python -m benchmarks.federated [--device cuda] [--quick]

Same model, clients, examples, steps, batch, rank and supervised tokens on every side; all sides take turns in one
process. The published recipe has gradient checkpointing on; a line with it off is beside, for the comparison to be
fair to those who would turn it off.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks._common import Figure, Sample, Settings, Target, alternate, entry, ratio
from benchmarks._ours import Rounds, table_of
from benchmarks._shapes import SHAPES, TINY, Shape
from benchmarks._trainers import PlainClient, PublishedRound, TrlClient

__all__ = ["compare", "main"]

ENGINES = ("cohort", "sequential")
SAME_TYPE = "trl, bfloat16"
_SAME_TYPE = 3.0
_TARGETS = {"small": 8.0, "large": 3.0, "smollm2": 3.0, "smollm2-bfloat16": 6.0}


def main(settings: Settings) -> list[Figure]:
    """Compare a round with published simulators."""
    shapes = SHAPES[settings.device]
    if settings.quick:
        shapes = (replace(shapes[0], clients=2, steps=2, batch=4), TINY)
    figures: list[Figure] = []
    for shape in shapes:
        with tempfile.TemporaryDirectory() as folder:
            figures += compare(shape, Path(folder), settings)
    return figures


def compare(shape: Shape, folder: Path, settings: Settings, *, lean: bool = False) -> list[Figure]:
    """Return what each published side takes over each engine of ours; `lean`, trl alone over the usual one."""
    engines = ENGINES[:1] if lean else ENGINES
    ours = {name: Rounds(table_of(shape, folder, settings, engine={"name": name})) for name in engines}
    theirs = {"trl": PublishedRound(TrlClient(shape, folder, settings))}
    if ours["cohort"].dtype == torch.float32:
        theirs["trl, no checkpointing"] = PublishedRound(TrlClient(shape, folder, settings, checkpointing=False))
    if not lean:
        client = PlainClient(shape, folder, settings, checkpointing=False)
        theirs["transformers.Trainer, no checkpointing"] = PublishedRound(client)
    if ours["cohort"].dtype == torch.bfloat16:  # fedloom takes it by itself where it pays; the published loop does not
        for name, again in ((SAME_TYPE, True), (f"{SAME_TYPE}, no checkpointing", False)):
            client = TrlClient(shape, folder, settings, checkpointing=again, dtype=torch.bfloat16)
            theirs[name] = PublishedRound(client)
    sides: dict[str, Callable[[], object]] = {**ours, **theirs}
    seconds = alternate(sides, repeats=settings.repeats(5 if shape.width == 0 else 3), settings=settings)
    supervised = {name: side.supervised_tokens for name, side in ours.items()}
    supervised |= {name: side.counted("supervised") for name, side in theirs.items()}
    if len(set(supervised.values())) > 1:
        raise RuntimeError(f"{shape.name}: the sides learnt from unequal numbers of tokens: {supervised}")
    work: dict[str, int | str] = {
        "supervised tokens": supervised["trl"],
        "clients": shape.clients,
        "steps": shape.steps,
        "batch": shape.batch,
        "rank": shape.rank,
        "our base weights": str(ours["cohort"].dtype).removeprefix("torch."),
    }
    figures = []
    for engine in engines:
        for name, side in theirs.items():
            more = {"padding": f"{ours[engine].padding:.1%}"} | _theirs(side)
            figures.append(_figure(shape, engine, name, seconds, settings, work | more))
    return figures


def _theirs(side: PublishedRound) -> dict[str, int | str]:
    shape = side.client.shape
    training_ms = 1000 * side.client.training_s / (shape.clients * shape.steps)
    padding = side.counted("padding") / side.counted("tokens")
    return {"their padding": f"{padding:.1%}", "their train() alone": f"{training_ms:.1f} ms per client step"}


def _figure(
    shape: Shape,
    engine: str,
    name: str,
    seconds: dict[str, Sample],
    settings: Settings,
    work: dict[str, int | str],
) -> Figure:
    goal = 5.0 if settings.device == "cuda" else _TARGETS.get(shape.name)
    goal = {"trl": goal, SAME_TYPE: _SAME_TYPE}.get(name)
    target = Target(">=", goal) if goal and engine == "cohort" else None
    per_step = 1000 / (shape.clients * shape.steps)
    return ratio(
        "a",
        f"round, {shape.name} model: {name} over fedloom {engine}",
        ours=seconds[engine].scaled(per_step, "ms per client step"),
        other=seconds[name].scaled(per_step, "ms per client step"),
        target=target,
        work=work,
    )


if __name__ == "__main__":
    entry(main)
