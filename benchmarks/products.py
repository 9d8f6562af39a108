"""Entry g: what a client step gains by the products of this processor, and by bfloat16 (`model.dtype`, opt-in).

    python -m benchmarks.products [--quick]

One model of 6.9 million parameters, adapters on all linear layers, clients trained side by side. The sides differ in
the products of frozen layers (`fedloom.base.products` against torch's) or in the type of the base weights alone; the
losses of the last round of each are told.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks._common import Figure, Settings, Target, alternate, entry, ratio
from benchmarks._ours import Rounds, table_of
from benchmarks._shapes import MEDIUM, TINY, Shape
from fedloom.base import products

__all__ = ["main"]


def main(settings: Settings) -> list[Figure]:
    """Measure a step with torch's products and in bfloat16 beside a step as it is."""
    if settings.device != "cpu":
        return []
    shape = TINY if settings.quick else MEDIUM
    with tempfile.TemporaryDirectory() as folder:
        rounds = {
            name: Rounds(_table(shape, Path(folder), settings, dtype))
            for name, dtype in (("float32", "float32"), ("torch's products", "float32"), ("bfloat16", "bfloat16"))
        }
        sides: dict[str, Callable[[], object]] = dict(rounds)
        sides["torch's products"] = _with_torch(rounds["torch's products"])
        seconds = alternate(sides, repeats=settings.repeats(7), settings=settings)
    per_step = 1000 / (shape.clients * shape.steps)
    steps = {name: one.scaled(per_step, "ms per client step") for name, one in seconds.items()}
    losses = {name: f"{one.record.loss.value:.6f}" for name, one in rounds.items() if one.record}
    work: dict[str, int | str] = {"clients": shape.clients, "batch": shape.batch, "fast": str(products.is_fast())}
    work |= {f"loss, {name}": value for name, value in losses.items()}
    pairs = [
        ("torch's products over ours", "float32", "torch's products", 1.35 if products.is_fast() else None),
        ("float32 by torch's products over bfloat16", "bfloat16", "torch's products", 2.0),
        ("float32 by ours over bfloat16", "bfloat16", "float32", None),
    ]
    return [
        ratio(
            "g",
            f"step of the 6.9M model: {what}",
            ours=steps[ours],
            other=steps[other],
            target=Target(">=", goal) if goal and not settings.quick else None,
            work=work,
        )
        for what, ours, other, goal in pairs
    ]


def _table(shape: Shape, folder: Path, settings: Settings, dtype: str) -> dict[str, Any]:
    table = table_of(shape, folder, settings, engine={"name": "cohort"})
    return table | {"model": table["model"] | {"dtype": dtype}}


def _with_torch(rounds: Rounds) -> Callable[[], object]:
    def run() -> object:
        with mock.patch.object(products, "is_fast", lambda: False):
            return rounds()

    return run


if __name__ == "__main__":
    entry(main)
