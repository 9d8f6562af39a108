"""Randomness by name: every draw comes from a seed that names its purpose, never from a global generator.

`seed_of(run_seed, "batches", round, client)` is a function of its arguments alone, so a resumed run, another engine or
a client trained beside others draws the same numbers.
"""

import hashlib
import math
import os
import random
from collections.abc import Callable

import numpy as np
import torch

__all__ = ["generator", "named_normal", "numpy_random", "python_random", "seed_of", "system_normal"]


def seed_of(*names: str | int) -> int:
    """Return a 63-bit seed that is a hash of the names, told apart by type and place.

    >>> seed_of(0, "batches", 3, "anna") == seed_of(0, "batches", 3, "anna")
    True
    >>> seed_of(1, 23) == seed_of(12, 3)
    False
    """
    return int.from_bytes(_digest(names)[:8], "big") >> 1


def _digest(names: tuple[str | int, ...]) -> bytes:
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return hashlib.sha256(text.encode()).digest()


def generator(*names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh torch generator on `device`, seeded by the names.

    On the CPU torch keeps 32 bits of the seed, so that among 65,000 generators two are alike as often as not: good for
    dropout and initial weights, not for the noise of a mechanism (`named_normal`).
    """
    return torch.Generator(device=device).manual_seed(seed_of(*names))


def numpy_random(*names: str | int) -> np.random.Generator:
    """Return a fresh numpy generator, seeded by the names."""
    return np.random.Generator(np.random.PCG64(seed_of(*names)))


def python_random(*names: str | int) -> random.Random:
    """Return a fresh generator of the standard library, seeded by the names."""
    return random.Random(seed_of(*names))


def named_normal(*names: str | int) -> Callable[[int], torch.Tensor]:
    """Return a stream of standard normal numbers, float32, told apart from others by 128 bits of the names' hash.

    The bits are those of Philox-4x64 (Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405) in counter mode
    under a key of 128 bits; each call goes on where the last one ended.
    """
    random = np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(names)[:16], "big")))
    return lambda count: torch.from_numpy(random.standard_normal(count, dtype=np.float32))


def system_normal(count: int) -> torch.Tensor:
    """Return `count` standard normal numbers, float32, from the system's secure source: no seed gives them back.

    53 random bits make a number in (0, 1], two such make two normal ones (Box & Muller, 1958), in float64.
    """
    pairs = -(-count // 2)
    bits = np.frombuffer(os.urandom(16 * pairs), dtype=np.uint64).reshape(2, pairs)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 1) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(uniform[0])), 2 * math.pi * uniform[1]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    return torch.from_numpy(normal.astype(np.float32))
