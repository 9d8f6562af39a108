"""Adapters of several ranks in rows of one layout.

A client of rank r < R trains the first r rows of A and columns of B; the rest is zero and stays zero, because the
gradient of a zero factor against a zero factor is zero. It keeps its own scale alpha / r. So that all rows mean the
same at the server, where the scale is alpha / R, its B is multiplied by R / r on the way up and divided on the way
down: (alpha / r) B_client A = (alpha / R) B_server A.

Taking the first rows is the best approximation where the server sorts them by singular value (`lora_svd`), and the
published zero-padding (HetLoRA, Cho et al., 2024, https://arxiv.org/abs/2401.06432) where it averages factors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedloom.base.tree import Layout

__all__ = ["Fit", "full_rank"]


def full_rank(layout: Layout) -> int:
    """Return the rank R of a layout's adapters; 0 if it has none."""
    return max((shape[0] for _, name, shape in layout.entries if name.endswith("lora_A")), default=0)


@dataclass(frozen=True)
class Fit:
    """How adapters of one rank lie in a row [P] of the full rank."""

    keeps_P: Tensor  # 0 at what the client does not have, r / R at its B, 1 at its A
    scaling: float  # R / r

    @classmethod
    def of(cls, layout: Layout, rank: int, device: torch.device) -> "Fit":
        """Return the fit of a rank in a layout."""
        share = rank / full_rank(layout)
        keeps_P = torch.ones(layout.size)
        for name, part in layout.tree(keeps_P).items():
            if name.endswith("lora_A"):
                part[rank:] = 0
            elif name.endswith("lora_B"):
                part[:, :rank], part[:, rank:] = share, 0
        return cls(keeps_P.to(device), 1 / share)

    def to_client(self, row_P: Tensor) -> Tensor:
        """Return the server's row as the client trains it."""
        return row_P * self.keeps_P

    def to_server(self, row_P: Tensor) -> Tensor:
        """Return the client's row as the server understands it."""
        return torch.where(self.keeps_P > 0, row_P / self.keeps_P, 0.0)
