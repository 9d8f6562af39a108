"""Entry i: a round of small classifiers of pictures, clients stacked, one after another, and as a plain torch loop.

    python -m benchmarks.images [--device cuda] [--quick]

Same weights at the start, pictures, steps, batch and rate on every side. That all of them learn the same is checked by
what their models lose on pictures that no client owns. And the peak memory of rounds of a residual network against
the number of clients, with the width that the engine chooses; every number in a fresh process, on the CPU alone, as a
GPU takes all of these clients at once.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

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
from benchmarks._ours import Rounds
from benchmarks._pictures import PictureShape, drawn_pictures, picture_table
from benchmarks._plain_rounds import PlainRounds, shuffled

__all__ = ["main"]

MLP = PictureShape(name="mlp", model={"name": "mlp", "hidden": [64]})
CNN = PictureShape(name="small_cnn", model={"name": "small_cnn"})
RESNET = PictureShape(name="resnet20", model={"name": "resnet", "depth": 20}, inputs=(3, 32, 32), steps=2, batch=16)
GOALS = {"sequential": 2.0, "plain torch loop": 3.0}
CLIENTS = (4, 16)
"""Of the residual network: both are more than are trained together."""
TOGETHER = "all together"
_ALIKE = 0.1
"""By which share the losses of two sides may differ: they meet the same pictures in another order."""


def main(settings: Settings) -> list[Figure]:
    """Compare a round's time for every small model, and its memory for numbers of clients."""
    if settings.part:
        return report(_measured(settings.part, settings))
    figures: list[Figure] = []
    for shape in (MLP, CNN):
        with tempfile.TemporaryDirectory() as folder:
            figures += _compare(_quick(shape, settings), Path(folder), settings)
    return [*figures, *_memory(settings)] if settings.device == "cpu" else figures


def _quick(shape: PictureShape, settings: Settings) -> PictureShape:
    return replace(shape, clients=3, steps=4) if settings.quick else shape


# ------------------------------------------------------------------------------------------------------- time


def _compare(shape: PictureShape, folder: Path, settings: Settings) -> list[Figure]:
    engines = {"cohort": {"name": "cohort", "width": shape.clients}, "sequential": {"name": "sequential"}}
    ours = {name: Rounds(picture_table(shape, folder, settings, engine=engine)) for name, engine in engines.items()}
    plain = PlainRounds(ours["cohort"].work.model.module, _loaders(shape), lr=shape.lr)
    losses = _Losses(shape, plain.module)
    sides: dict[str, Callable[[], object]] = {**ours, "plain torch loop": plain}
    seconds = alternate(sides, repeats=settings.repeats(7), settings=settings)
    _check_examples(shape, ours, plain)
    found = {name: losses.of(one.params) for name, one in ours.items()}
    found["plain torch loop"] = losses.of(plain.module.state_dict())
    losses.check(found)
    per_step = 1000 / (shape.clients * shape.steps)
    return [
        ratio(
            "i",
            f"round, {shape.name}, {shape.clients} clients: {name} over cohort",
            ours=seconds["cohort"].scaled(per_step, "ms per client step"),
            other=seconds[name].scaled(per_step, "ms per client step"),
            target=Target(">=", goal) if settings.device == "cpu" else None,
            work={
                "steps": shape.steps,
                "batch": shape.batch,
                "examples": plain.examples,
                "loss at the start": losses.start,
                "loss of cohort": found["cohort"],
                f"loss of {name}": found[name],
            },
        )
        for name, goal in GOALS.items()
    ]


def _loaders(shape: PictureShape) -> list:
    drawn = [_tensors(shape, shape.examples, client) for client in range(shape.clients)]
    return [shuffled(inputs, label_N, shape.batch) for inputs, label_N in drawn]


def _tensors(shape: PictureShape, count: int, *names: str | int) -> tuple[Tensor, Tensor]:
    """Return pictures [N, C, H, W] from 0 to 1 and their labels [N]."""
    pictures, label_N = drawn_pictures(shape, count, *names)
    return torch.from_numpy(pictures).float() / 255, torch.from_numpy(label_N)


def _check_examples(shape: PictureShape, ours: dict[str, Rounds], plain: PlainRounds) -> None:
    """Refuse sides that trained on unequal numbers of pictures."""
    seen = {name: side.examples for name, side in ours.items()} | {"plain torch loop": plain.examples}
    if set(seen.values()) != {shape.clients * shape.examples}:
        raise RuntimeError(f"{shape.name}: the sides trained on unequal numbers of pictures: {seen}")


class _Losses:
    """What models lose on average on pictures that no client owns."""

    def __init__(self, shape: PictureShape, module: nn.Module) -> None:
        self.name, self.module = shape.name, module
        device = next(module.parameters()).device
        self.inputs, self.label_N = (part.to(device) for part in _tensors(shape, 2000, "held out"))
        self.start = self.of(module.state_dict())

    def of(self, params: dict[str, Tensor]) -> float:
        """Return the mean cross-entropy under these parameters."""
        with torch.no_grad():
            scores_NK = functional_call(self.module, params, (self.inputs,))
            return float(functional.cross_entropy(scores_NK, self.label_N))

    def check(self, found: dict[str, float]) -> None:
        """Refuse sides of which one did not learn, or that learnt something else."""
        if max(found.values()) >= self.start or max(found.values()) > (1 + _ALIKE) * min(found.values()):
            raise RuntimeError(f"{self.name}: the sides did not learn the same from {self.start:.3f}: {found}")


# ----------------------------------------------------------------------------------------------------- memory


def _memory(settings: Settings) -> list[Figure]:
    """Return the peak with many clients over that with few: of the process, and of what rounds add to it."""
    few, many = CLIENTS
    parts = (str(few), str(many), TOGETHER)
    found = {part: in_fresh_process("benchmarks.images", part, settings) for part in parts}
    work: dict[str, int | float | str] = {"steps": RESNET.steps, "batch": RESNET.batch}
    work |= {f"width with {part} clients": int(found[part]["width"]) for part in parts[:2]}
    work[f"all {many} together"] = f"{found[TOGETHER]['added_bytes'] / 2**20:.0f} MiB beyond what was held before"
    figures = []
    for key, what, goal in (("peak_bytes", "peak memory of a round", 1.2), ("added_bytes", "what a round adds", None)):
        sizes = {part: found[part][key] / 2**20 for part in parts}
        figures.append(
            Figure(
                entry="i",
                what=f"{what}, {RESNET.name}: {many} clients over {few}",
                value=sizes[str(many)] / sizes[str(few)],
                target=Target("<=", goal) if goal else None,
                ours=Sample((sizes[str(many)],), "MiB"),
                other=Sample((sizes[str(few)],), "MiB"),
                work=work,
            )
        )
    return figures


def _measured(part: str, settings: Settings) -> dict[str, float]:
    """Return the peak of as many trainings as the most clients take in a round, whatever their number."""
    clients = max(CLIENTS) if part == TOGETHER else int(part)
    shape = replace(RESNET, clients=clients, **({"inputs": (3, 8, 8), "batch": 2} if settings.quick else {}))
    engine = {"name": "cohort", "width": clients if part == TOGETHER else 0}
    with tempfile.TemporaryDirectory() as folder:
        rounds = Rounds(picture_table(shape, Path(folder), settings, engine=engine))
    before = forget_peak(settings)
    for _ in range(max(CLIENTS) // clients):
        rounds()
    peak = peak_bytes(settings)
    return {"peak_bytes": peak, "added_bytes": peak - before, "width": rounds.engine.width}


if __name__ == "__main__":
    entry(main)
