"""Entry d: aggregation in GB/s of rows read, beside memcpy.

    python -m benchmarks.aggregation [--quick]

The mean reads N float32 rows and gives a new one; memcpy copies the same rows to memory that was in use before. The
exact ways for low-rank factors have to compute: their rate is given, not compared. On one thread, on the CPU, where
rows arrive, whatever the device.
"""

import torch

from benchmarks._common import Figure, Settings, Target, alternate, entry, ratio
from fedloom.base import rng
from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Aggregator, Frame

__all__ = ["main"]

SIZES = ((1_000_000, 4), (1_000_000, 20), (10_000_000, 4), (10_000_000, 20), (100_000_000, 4))
QUICK = ((100_000, 4), (100_000, 20))
LAYERS, WIDTH, RANK = 28, 1024, 16
"""Low-rank factors of the size of a 0.6 B model's: 0.9 million numbers."""


def main(settings: Settings) -> list[Figure]:
    """Measure the mean against memcpy, and the exact ways for low-rank factors."""
    means = [_mean(size, n_rows, settings) for size, n_rows in (QUICK if settings.quick else SIZES)]
    exact = [("lora_svd", 4), ("lora_svd", 20), ("lora_stack", 4)]
    return [*means, _alternative(settings)] + [_factors(name, n_rows, settings) for name, n_rows in exact]


def _rows(n_rows: int, size: int) -> list[torch.Tensor]:
    return [torch.empty(size).uniform_(-1, 1, generator=rng.generator("rows", k)) for k in range(n_rows)]


def _aggregate(aggregator: Aggregator, rows: list[torch.Tensor], frame: Frame) -> torch.Tensor:
    total = aggregator.accumulator(frame)
    for number, row_P in enumerate(rows):
        total.add(row_P, 1.0 + number)
    return total.result().row_P


def _mean(size: int, n_rows: int, settings: Settings) -> Figure:
    rows, copies = _rows(n_rows, size), [torch.zeros(size) for _ in range(min(n_rows, 4))]
    mean, frame = lookup(Aggregator, "mean")(), Frame(Layout((("delta", "", (size,)),)), torch.zeros(0))

    def copy() -> None:
        for number, row_P in enumerate(rows):
            copies[number % len(copies)].copy_(row_P)

    sides = {"mean": lambda: _aggregate(mean, rows, frame), "memcpy": copy}
    seconds = alternate(sides, repeats=settings.repeats(15 if size < 50_000_000 else 7), settings=settings)
    n_bytes = 4 * size * n_rows
    rates = {name: n_bytes / 1e9 / sample.median for name, sample in seconds.items()}
    return ratio(
        "d",
        f"mean of {n_rows} rows of {size:,} numbers over memcpy",
        ours=seconds["mean"],
        other=seconds["memcpy"],
        target=None if settings.quick else Target(">=", 0.6),
        work={"bytes read": n_bytes, "mean GB/s": rates["mean"], "memcpy GB/s": rates["memcpy"]},
        note="float64 sums; the mean's result is new memory each time, memcpy's is not",
    )


def _alternative(settings: Settings) -> Figure:
    """The mean against what one would write by hand, in float32, which holds all rows twice."""
    size, n_rows = (100_000, 20) if settings.quick else (1_000_000, 20)
    rows, weight_N = _rows(n_rows, size), torch.arange(1.0, 1 + n_rows)
    mean, frame = lookup(Aggregator, "mean")(), Frame(Layout((("delta", "", (size,)),)), torch.zeros(0))
    sides = {
        "mean": lambda: _aggregate(mean, rows, frame),
        "stacked": lambda: (weight_N / weight_N.sum()) @ torch.stack(rows),
    }
    seconds = alternate(sides, repeats=settings.repeats(15), settings=settings)
    what = f"mean of {n_rows} rows of {size:,} numbers over weights @ torch.stack(rows)"
    return ratio("d", what, ours=seconds["mean"], other=seconds["stacked"], work={"bytes read": 4 * size * n_rows})


def _factors(name: str, n_rows: int, settings: Settings) -> Figure:
    layers = 2 if settings.quick else LAYERS
    shapes = {
        f"{k}.lora_{end}": shape for k in range(layers) for end, shape in (("A", (RANK, WIDTH)), ("B", (WIDTH, RANK)))
    }
    layout = Layout(tuple(("delta", key, shape) for key, shape in shapes.items()))
    rows = _rows(n_rows, layout.size)
    if name == "lora_stack":  # its stack must fit: each client holds its share of the rank axis
        for number, row_P in enumerate(rows):
            _keep_share(layout, row_P, torch.arange(RANK) % n_rows == number)
    aggregator, frame = lookup(Aggregator, name)(), Frame(layout, torch.zeros(layout.size))
    sample = alternate(
        {name: lambda: _aggregate(aggregator, rows, frame)}, repeats=settings.repeats(3), settings=settings
    )[name]
    n_bytes = 4 * layout.size * n_rows
    return Figure(
        entry="d",
        what=f"{name} of {n_rows} rows, {layers} layers {WIDTH} x {WIDTH} of rank {RANK}",
        value=n_bytes / 1e9 / sample.median,
        unit="GB/s",
        ours=sample,
        work={"bytes read": n_bytes},
        note="bound by two QR and one SVD per layer, not by memory",
    )


def _keep_share(layout: Layout, row_P: torch.Tensor, keep_R: torch.Tensor) -> None:
    for name, value in layout.slots(row_P)["delta"].items():
        value.mul_(keep_R[:, None] if name.endswith("A") else keep_R)


if __name__ == "__main__":
    entry(main)
