"""The buffers in which clients train: one row each, seen by the model as views."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedloom.base.tree import Layout, Tree
from fedloom.contracts.federated import Work
from fedloom.federated.optimisers import Moments
from fedloom.federated.ranks import Fit

__all__ = ["Workspace"]


@dataclass
class Workspace:
    """The buffers of K clients in training, allocated once and used by one cohort after another."""

    rows_KP: Tensor
    moments: Moments
    layout: Layout
    n_shared: int
    seen: dict[int, Tree] = field(default_factory=dict[int, Tree])
    fits: dict[int, Fit] = field(default_factory=dict[int, Fit])

    @classmethod
    def of(cls, work: Work, width: int) -> "Workspace":
        """Return buffers for `width` clients and the work's parameters on the model's device."""
        shared = work.plan.layout
        layout = Layout(shared.entries + Layout.of_tree(work.private).entries)
        rows_KP = torch.zeros(width, layout.size, device=work.model.device)
        return cls(rows_KP, Moments.like(rows_KP, work.plan.local), layout, shared.size)

    def leaves(self, n_clients: int) -> Tree:
        """Return what the model sees of the first rows: views [K, ...] by parameter name."""
        if n_clients not in self.seen:
            views = self.layout.tree(self.rows_KP[:n_clients].detach())
            self.seen[n_clients] = {name: view.requires_grad_() for name, view in views.items()}
        return self.seen[n_clients]

    def fit(self, rank: int) -> Fit:
        """Return how adapters of that rank lie in a row."""
        if rank not in self.fits:
            self.fits[rank] = Fit.of(self.layout, rank, self.rows_KP.device)
        return self.fits[rank]

    def load(self, place: int, anchor_P: Tensor, private_P: Tensor, saved: Tree | None) -> None:
        """Put one client's parameters and its optimiser in place."""
        self.rows_KP[place, : self.n_shared].copy_(anchor_P)
        self.rows_KP[place, self.n_shared :].copy_(private_P)
        self.moments.load(place, saved)
