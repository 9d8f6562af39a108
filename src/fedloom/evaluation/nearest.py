"""Did a generator copy? Whether samples lie nearer to the examples that guided it than to others of the same kind.

Meehan et al., 2020, https://arxiv.org/abs/2004.05675, section 3, ask of each sample whether it is nearer to what was
trained on than to a held-out set of the same distribution. Here both are as large and of the same classes, so that by
chance one half is. What chance is, a permutation test says: within each class private and held-out examples change
sides at random.

Shapes: G samples, N private and N held-out examples, D numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedloom.base import rng

__all__ = ["Group", "Nearest", "nearest"]

_PERMUTATIONS = 999


@dataclass(frozen=True)
class Group:
    """Samples of a class of a client, and as many examples of either side."""

    samples_GD: Tensor
    private_ND: Tensor
    held_ND: Tensor


@dataclass(frozen=True)
class Nearest:
    """What an audit found."""

    samples: int
    nearer: float
    """Share of samples nearer to a private example than to any held-out one; ties are half."""
    p_value: float
    """Share of permutations by which as many or more are."""
    copies: int
    """Samples that are a private example, number for number, and no held-out one."""

    @property
    def copied(self) -> bool:
        """Whether the generator gives private examples away."""
        return self.copies > 0 or self.p_value < 0.01


def nearest(groups: Sequence[Group], seed: int) -> Nearest:
    """Return what the audit of all groups together finds."""
    distances = [_distances(group) for group in groups]
    n_samples = sum(len(one) for one in distances)
    told = np.array([_nearer(one, np.arange(one.shape[1]) < one.shape[1] // 2) for one in distances]).sum()
    random = rng.numpy_random("nearest", seed)
    by_chance = [
        sum(_nearer(one, random.permutation(one.shape[1]) < one.shape[1] // 2) for one in distances)
        for _ in range(_PERMUTATIONS)
    ]
    p_value = (1 + sum(one >= told for one in by_chance)) / (1 + _PERMUTATIONS)
    copies = sum(_copies(one) for one in distances)
    return Nearest(n_samples, float(told) / n_samples if n_samples else 0.5, float(p_value), copies)


def _distances(group: Group) -> NDArray[np.float64]:
    """Return distances [G, 2 N], those to private examples first; equal numbers have a distance of exactly 0."""
    others = torch.cat([group.private_ND, group.held_ND]).double()
    return torch.cdist(group.samples_GD.double(), others, compute_mode="donot_use_mm_for_euclid_dist").numpy()


def _nearer(distances: NDArray[np.float64], private: NDArray[np.bool_]) -> float:
    one, other = distances[:, private].min(axis=1), distances[:, ~private].min(axis=1)
    return float((one < other).sum() + 0.5 * (one == other).sum())


def _copies(distances: NDArray[np.float64]) -> int:
    n = distances.shape[1] // 2
    return int(((distances[:, :n].min(axis=1) == 0) & (distances[:, n:].min(axis=1) > 0)).sum())
