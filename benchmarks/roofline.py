"""Entry g: how close a round comes to the fastest matrix product of the device, and what its tokens are.

    python -m benchmarks.roofline [--device cuda] [--quick]

The operations are those of `_flops.py`: what the step needs and no more, on real tokens, with logits where something is
supervised. The peak is the best of several matrix products of the same type, by the fastest kernel
known (`fedloom.base.products`, not torch's default), measured between the rounds.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks._common import Figure, Sample, Settings, Target, alternate, entry
from benchmarks._flops import step_flops
from benchmarks._ours import Rounds, table_of
from benchmarks._shapes import ALL_LINEAR, LARGE, SHAPES, TINY, Shape
from fedloom.base.products import linear

__all__ = ["main"]

# Rows, inner and columns of the products tried: squares, and what the layers of such models multiply.
PRODUCTS = {
    "cpu": ((512, 512, 512), (1024, 1024, 1024), (1024, 640, 1728), (512, 1728, 640)),
    "cuda": ((4096, 4096, 4096), (8192, 8192, 8192), (8192, 4096, 11008)),
}


def main(settings: Settings) -> list[Figure]:
    """Measure achieved operations per second over the peak."""
    shapes = (TINY,) if settings.quick else (LARGE, replace(LARGE, name="large, all layers", targets=ALL_LINEAR))
    if settings.device == "cuda" and not settings.quick:
        shapes = SHAPES["cuda"][1:]
    return [_measure(shape, settings) for shape in shapes]


def _measure(shape: Shape, settings: Settings) -> Figure:
    with tempfile.TemporaryDirectory() as folder:
        rounds = Rounds(table_of(shape, Path(folder), settings, engine={"name": "cohort"}))
        products = {f"{product}": Product(product, rounds.dtype, settings) for product in PRODUCTS[settings.device]}
        seconds = alternate({"round": rounds, **products}, repeats=settings.repeats(5), settings=settings)
    peaks = {name: product.flops / seconds[name].median for name, product in products.items()}
    best = max(peaks, key=peaks.__getitem__)
    lengths = [len(item.tokens_T) for shard in rounds.work.shards.values() for item in shard.items]
    flops = step_flops(shape, lengths=lengths, supervised=rounds.supervised_tokens)
    tokens = sum(lengths)
    total = tokens / (1 - rounds.padding)
    achieved = Sample(tuple(flops / value / 1e9 for value in seconds["round"].values), "GFLOP/s")
    return Figure(
        entry="g",
        what=f"operations of a round, {shape.name} model, over the matmul peak",
        value=achieved.median * 1e9 / peaks[best],
        unit="of peak",
        target=Target(">=", 0.5),
        ours=achieved,
        other=Sample(tuple(products[best].flops / value / 1e9 for value in seconds[best].values), "GFLOP/s"),
        work={
            "dtype": str(rounds.dtype).removeprefix("torch."),
            "peak at": best,
            "GFLOP of a round": flops / 1e9,
            "supervised": f"{rounds.supervised_tokens / total:.1%}",
            "prompt": f"{(tokens - rounds.supervised_tokens) / total:.1%}",
            "padding": f"{rounds.padding:.1%}",
            "tokens": tokens,
        },
    )


class Product:
    """A matrix product, repeated until it takes long enough to be timed."""

    def __init__(self, sizes: tuple[int, int, int], dtype: torch.dtype, settings: Settings) -> None:
        rows, inner, columns = sizes
        self.left = torch.randn(rows, inner, device=settings.device).to(dtype)
        self.right = torch.randn(columns, inner, device=settings.device).to(dtype)
        once = 2.0 * rows * inner * columns
        self.repeats = max(1, round((2e13 if settings.device == "cuda" else 2e10) / once))
        self.flops = once * self.repeats

    def __call__(self) -> None:
        """Multiply."""
        for _ in range(self.repeats):
            linear(self.left, self.right)


if __name__ == "__main__":
    entry(main)
