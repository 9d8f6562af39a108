"""Entry c: differentially private steps against plain ones, against Opacus and against a loop over examples.

    python -m benchmarks.private [--device cuda] [--quick]

Same model, adapters, examples and optimiser on all sides, and all examples in every step (a sampling rate of 1), so
that Poisson sampling gives every side the same number. Peak memory is that of a fresh process for each side, above what
it held before its first step.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

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
from benchmarks._ours import Rounds, table_of
from benchmarks._shapes import Lengths, Shape

__all__ = ["compare", "main"]

SHAPE = Shape(
    name="5M",
    width=256,
    depth=6,
    inner=688,
    heads=4,
    vocabulary=4096,
    rank=16,
    clients=1,
    steps=2,
    batch=16,
    epochs=2,
    lengths=Lengths(prompt=(10, 40), answer_median=24.0, longest=96),
)
SHAPES = {
    "cpu": SHAPE,
    "cuda": replace(SHAPE, name="1B", width=2048, depth=16, inner=5632, heads=16, vocabulary=32_000, batch=16),
}
OURS = "fedloom with DP"
_PRIVATE = {"name": "gaussian", "unit": "example", "clip": 1.0, "noise_multiplier": 1.0, "epsilon": 0.0, "delta": 1e-3}
TABLES = {OURS: {"privacy": _PRIVATE, "weighting": "uniform"}, "fedloom without DP": {}}


def main(settings: Settings) -> list[Figure]:
    """Compare time and memory of private steps."""
    shape = SHAPES[settings.device]
    return compare("benchmarks.private", replace(shape, batch=4) if settings.quick else shape, settings)


def compare(module: str, shape: Shape, settings: Settings) -> list[Figure]:
    """Compare time and memory of private steps of a shape; `module` is who is called again for a side's memory."""
    if settings.part:
        return report(_memory(shape, settings))
    with tempfile.TemporaryDirectory() as folder:
        sides = {name: _side(name, shape, Path(folder), settings) for name in _names()}
        seconds = alternate(sides, repeats=settings.repeats(3), settings=settings)
    grown = {name: in_fresh_process(module, name, settings) for name in _names()}
    return [_time(name, shape, seconds) for name in _names() if name != OURS] + [
        _space(name, shape, grown) for name in _names() if name != OURS
    ]


def _names() -> list[str]:
    from benchmarks._opacus import MAKERS

    return [*TABLES, *MAKERS]


def _side(name: str, shape: Shape, folder: Path, settings: Settings) -> Callable[[], object]:
    if name in TABLES:
        return Rounds(table_of(shape, folder, settings, **TABLES[name]))
    from benchmarks._opacus import MAKERS

    step = MAKERS[name](shape, folder, settings)

    def steps() -> None:
        for _ in range(shape.steps):
            step()

    return steps


def _time(name: str, shape: Shape, seconds: dict[str, Sample]) -> Figure:
    ours, other = (seconds[side].scaled(1000 / shape.steps, "ms a step") for side in (OURS, name))
    work: dict[str, int | float | str] = {"examples": shape.batch, "rank": shape.rank, "steps": shape.steps}
    if name == "fedloom without DP":
        figure = ratio("c", f"{shape.name}, step: fedloom with DP over without", ours=other, other=ours, work=work)
        return replace(figure, ours=ours, other=other, target=Target("<=", 1.15))
    target = Target(">=", 2.0) if name.startswith("Opacus") else None
    return ratio(
        "c", f"{shape.name}, step: {name} over fedloom with DP", ours=ours, other=other, target=target, work=work
    )


def _space(name: str, shape: Shape, grown: dict[str, dict[str, float]]) -> Figure:
    ours, other = (Sample((grown[side]["grown_bytes"] / 2**20,), "MiB") for side in (OURS, name))
    peaks = {f"peak, {side}": f"{grown[side]['peak_bytes'] / 2**20:.0f} MiB" for side in (OURS, name)}
    return Figure(
        entry="c",
        what=f"{shape.name}, memory of a step: {name} over fedloom with DP",
        value=other.median / ours.median,
        target=Target(">=", 1.0) if name.startswith("Opacus") else None,
        ours=ours,
        other=other,
        work=peaks,
    )


def _memory(shape: Shape, settings: Settings) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        side = _side(settings.part, shape, Path(folder), settings)
        before_bytes = forget_peak(settings)
        for _ in range(2):
            side()
    peak = peak_bytes(settings)
    return {"peak_bytes": peak, "grown_bytes": peak - before_bytes}


if __name__ == "__main__":
    entry(main)
