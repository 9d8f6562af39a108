"""Entry b: clients trained together over one base (`cohort`) against one after another (`sequential`).

    python -m benchmarks.cohort [--device cuda] [--quick]

All examples have one length, so what differs is the engine alone. A case whose round would take too long is left out
and named.
"""

import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path

from benchmarks._common import Figure, Settings, Target, alternate, entry, ratio
from benchmarks._flops import step_flops
from benchmarks._ours import Rounds, table_of
from benchmarks._shapes import Lengths, Shape

__all__ = ["main"]

CLIENTS, BATCHES, LENGTHS = (1, 4, 16, 64), (1, 4, 16), (64, 256)
SMALL = Shape(name="0.8M", width=128, depth=4, inner=256, heads=4, vocabulary=1280, steps=4)
MEDIUM = Shape(name="20M", width=512, depth=6, inner=1376, heads=8, vocabulary=4096, steps=1)
BILLION = Shape(name="1B", width=2048, depth=16, inner=5632, heads=16, steps=2, rank=16)
SIZES = {"cpu": (SMALL, MEDIUM), "cuda": (SMALL, BILLION)}
# What a round may cost, in FLOP: two or three seconds of a thread for the small model, whose products are narrow.
LIMIT = {SMALL.name: 6e10, MEDIUM.name: 9e10, BILLION.name: 2e14}
_SPECIAL_TOKENS = 3


def main(settings: Settings) -> list[Figure]:
    """Compare the engines over numbers of clients, batches, lengths and model sizes."""
    cases = list(product(SIZES[settings.device], LENGTHS, BATCHES, CLIENTS))
    if settings.quick:
        cases = [(SMALL, 64, 1, 1), (SMALL, 64, 1, 4)]
    figures: list[Figure] = []
    skipped: list[str] = []
    for size, length, batch, clients in cases:
        shape = replace(size, clients=clients, batch=batch, lengths=exactly(length))
        if _cost(shape, length) > LIMIT[size.name] and not settings.quick:
            skipped.append(f"{size.name} K={clients} batch {batch} length {length}")
            continue
        figures.append(_compare(shape, length, settings))
    return [*figures, _worst(figures, skipped)]


def exactly(length: int) -> Lengths:
    """Return lengths with which every example has this many tokens, half of them in the answer."""
    words = length - _SPECIAL_TOKENS
    asked = words // 2
    return Lengths(prompt=(asked, asked), answer_median=words - asked, answer_sigma=0.0, longest=words)


def _cost(shape: Shape, length: int) -> float:
    examples = shape.clients * shape.batch
    return shape.steps * step_flops(shape, lengths=[length] * examples, supervised=examples * length // 2)


def _compare(shape: Shape, length: int, settings: Settings) -> Figure:
    with tempfile.TemporaryDirectory() as folder:
        tables = {
            name: table_of(shape, Path(folder), settings, engine=engine)
            for name, engine in {
                "cohort": {"name": "cohort", "width": shape.clients},
                "sequential": {"name": "sequential"},
            }.items()
        }
        sides = {name: Rounds(table) for name, table in tables.items()}
        seconds = alternate(sides, repeats=settings.repeats(4), settings=settings)
    per_step = 1000 / (shape.clients * shape.steps)
    goal = 6.0 if settings.device == "cuda" else 3.0
    key = (shape.clients, shape.batch, length) == (16, 1, 64) and shape.name == SMALL.name
    return ratio(
        "b",
        f"{shape.name} K={shape.clients} batch {shape.batch} length {length}: sequential over cohort",
        ours=seconds["cohort"].scaled(per_step, "ms per client step"),
        other=seconds["sequential"].scaled(per_step, "ms per client step"),
        target=Target(">=", goal) if key else None,
        work={"supervised tokens": sides["cohort"].supervised_tokens, "padding": 0, "steps": shape.steps},
    )


def _worst(figures: list[Figure], skipped: list[str]) -> Figure:
    worst = min(figures, key=lambda figure: figure.value)
    return Figure(
        entry="b",
        what=f"the lowest of {len(figures)} cases ({worst.what.partition(':')[0]}): sequential over cohort",
        value=worst.value,
        target=Target(">=", 0.97),
        note=f"left out, as a round would take too long: {'; '.join(skipped)}." if skipped else "",
    )


if __name__ == "__main__":
    entry(main)
