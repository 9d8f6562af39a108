"""The contract of differential privacy: how much of whom is let through, and what it costs.

Shape letters as in `contracts`: P numbers in a row, E contributions, L blocks of parameters.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import Family
from fedloom.base.tree import Tree
from fedloom.contracts.messages import Earlier, Guard

__all__ = ["Mechanism", "Noise"]

Noise = Callable[[int], Tensor]
"""Gives that many fresh standard normal numbers, float32 on the CPU."""


class Mechanism(Family):
    """Differential privacy of contributions: each is clipped, their sum gets noise once, the denominator is fixed.

    A contribution is the gradient of one example or the row of one client. What has to be kept between uses, such as
    an adaptive clipping norm, lies in a tree that the caller carries.
    """

    folder = "fedloom.federated.privacy"

    def protects(self) -> Literal["nothing", "example", "client", "client_local"]:
        """Return whose contribution is clipped; `client_local` adds the noise before a row leaves its client."""
        return "nothing"

    def guard(self, *, population: int, expected: float, uses: int) -> Guard:
        """Return the guard of data of `population` records, `expected` of them in each of `uses` planned uses."""
        return Guard(1.0, 0.0, 1.0, uses)

    def spent(self, guard: Guard, uses: int, before: Sequence[Earlier] = ()) -> dict[str, float]:
        """Return the epsilon spent after so many uses, by accountant; the first one is the one that counts.

        What was spent `before` on the same data is composed with them; infinite where it cannot be.
        """
        return {}

    def start(self) -> Tree:
        """Return what is kept before the first use."""
        return {}

    def bound(self) -> float:
        """Return the largest norm that a contribution has after it was scaled, at the start."""
        return math.inf

    def scales(self, norms_LE: Tensor, kept: Tree) -> Tensor:
        """Return factors [L, E] from the norms of E contributions in L blocks of parameters."""
        return torch.ones_like(norms_LE)

    def spread(self, guard: Guard, kept: Tree, expected: float) -> float:
        """Return the standard deviation of the noise on each number of the sum that `release` is given."""
        return 0.0

    def release(
        self, sum_P: Tensor, *, inside: float, total: int, expected: float, guard: Guard, kept: Tree, noise: Noise
    ) -> tuple[Tensor, Tree]:
        """Return the noisy sum of clipped contributions over `expected`, and what is kept.

        `inside` of `total` contributions were not clipped; where blocks are clipped one by one, each counts by its
        share of such blocks.
        """
        return sum_P / expected, kept

    def repeats(self) -> bool:
        """Return whether a use that is made again is the same use, because its noise is drawn by name."""
        return True

    def source(self, *names: str | int) -> Noise:
        """Return a source of noise: the system's, or in a simulation one seeded by the names."""
        raise ConfigError("privacy: this mechanism adds no noise.")
