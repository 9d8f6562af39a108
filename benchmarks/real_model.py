"""Entry a on a real model's shape: SmolLM2-135M with random weights, in float32 and as it is published, in bfloat16.

    python -m benchmarks.real_model [--device cuda] [--quick]

The recipe is the published one: rank 16 on query and value projections, texts of up to 512 tokens, two clients.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks._common import Figure, Settings, entry
from benchmarks._shapes import SMOLLM2, TINY
from benchmarks.federated import compare

__all__ = ["main"]


def main(settings: Settings) -> list[Figure]:
    """Compare a round with published simulators, for each type of the base."""
    shape = TINY if settings.quick else SMOLLM2
    figures: list[Figure] = []
    for one in (shape, replace(shape, name=f"{shape.name}-bfloat16", dtype="bfloat16")):
        with tempfile.TemporaryDirectory() as folder:
            figures += compare(one, Path(folder), settings, lean=True)
    return figures


if __name__ == "__main__":
    entry(main)
