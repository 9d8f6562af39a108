"""Entry h on a real model's shape: greedy answers of SmolLM2-135M with random weights, in float32.

python -m benchmarks.real_generation [--quick]
"""

import tempfile
from pathlib import Path

from benchmarks._common import Figure, Settings, entry
from benchmarks._shapes import SMOLLM2, TINY
from benchmarks.generation import SHARED, Task, compare

__all__ = ["main"]


def main(settings: Settings) -> list[Figure]:
    """Compare the ways, with and without shared tokens."""
    if settings.device != "cpu":
        return []
    shape, n_prompts, median = (TINY, 8, 4.0) if settings.quick else (SMOLLM2, 16, 24.0)
    with tempfile.TemporaryDirectory() as folder:
        return [
            figure
            for n_shared in (0, SHARED)
            for figure in compare(shape, Task.of(shape, n_prompts, n_shared, median), Path(folder), settings)
        ]


if __name__ == "__main__":
    entry(main)
