"""Entry c on a real model's shape: a private step of SmolLM2-135M with random weights, time and memory.

    python -m benchmarks.real_private [--device cuda] [--quick]

The recipe is that of entry a on this shape, one client, four examples a step, all in float32.
"""

from dataclasses import replace

from benchmarks._common import Figure, Settings, entry
from benchmarks._shapes import SMOLLM2, TINY
from benchmarks.private import compare

__all__ = ["main"]


def main(settings: Settings) -> list[Figure]:
    """Compare time and memory of private steps."""
    shape = replace(TINY if settings.quick else SMOLLM2, clients=1)
    return compare("benchmarks.real_private", shape, settings)


if __name__ == "__main__":
    entry(main)
