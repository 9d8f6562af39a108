"""Whether a server trains what it is asked for: fake steps, whose answers an honest server makes otherwise.

After SplitGuard (Erdogan, Kupcu & Cicek, 2022, https://arxiv.org/abs/2108.09052). With some probability a client asks
for the gradient of random targets (F), in no way that a message tells, and keeps the answer from its weights; the
answers before and after each fake are the sets R1 and R2, R is both. With the angle theta between two sets' mean
vectors, in radians, and the difference d of their mean norms,

    S = ( theta(F, R) d(F, R) - theta(R1, R2) d(R1, R2) ) / ( d(F, R) + d(R1, R2) + eps )
    score = sigmoid(ALPHA S)

which is near 1 where random targets change what comes back, and near 1/2 where they do not, as of a server that
trains the client's part for an end of its own (feature-space hijacking, Pasquini et al., 2021,
https://arxiv.org/abs/2012.02670): its gradients depend on the states alone.

A vector is the sum of the rows of a BACK over the supervised tokens of its batch.

Shapes: D width; three sets: fake, before, after.

Deviations: the paper has all other steps in R, halved at random; gradients of language models become smaller from
step to step, and a fake that came late would differ from steps that came early whatever a server does. The paper's
gradients are those of images of one size; here texts differ, and rows are added. In a U the client could also send
multiples of a gradient and look for multiples of the answer; a server that looks at GRAD passes that, and random
targets as well as long as it sends what it should whenever it is not sure.

A model has to predict better than chance, else random targets are as good as true ones and an honest server is found
guilty. The fakes' gradients do move the server's adapters, which cannot be told to leave them out.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedloom.base.tree import Tree

__all__ = ["Guard"]

_ALPHA, _EPS = 7.0, 1e-12


@dataclass
class Guard:
    """What has come of one client's fakes and of the steps before and after them so far."""

    sums_3D: Tensor = field(default_factory=lambda: torch.zeros(3, 0))
    norms_3: Tensor = field(default_factory=lambda: torch.zeros(3))
    fakes_1: Tensor = field(default_factory=lambda: torch.zeros(1))
    """Fake steps that lie between two others."""
    open_2D: Tensor = field(default_factory=lambda: torch.zeros(2, 0))
    """The last answer to a step that was none, and the fake behind it; zeros where there is none yet."""

    @classmethod
    def of(cls, kept: Tree) -> "Guard":
        """Return what was kept of earlier rounds; of nothing a new one."""
        return cls(*(kept[name].clone() for name in ("sums", "norms", "fakes", "open"))) if kept else cls()

    def kept(self) -> Tree:
        """Return what the next round goes on from."""
        return {"sums": self.sums_3D, "norms": self.norms_3, "fakes": self.fakes_1, "open": self.open_2D}

    @property
    def fakes(self) -> int:
        """Fake steps that count so far."""
        return int(self.fakes_1)

    def add(self, answer_ND: Tensor, weight: float, *, fake: bool) -> bool:
        """Count an answer, the gradient [N, D] of a loss over so many tokens; return whether a fake now counts more."""
        found_D = answer_ND.detach().float().sum(0).cpu() / max(weight, 1.0)
        if not self.open_2D.numel():
            self.sums_3D, self.open_2D = torch.zeros(3, len(found_D)), torch.zeros(2, len(found_D))
        before_D, fake_D = self.open_2D
        if fake:
            self.open_2D = torch.stack((before_D, found_D))
            return False
        closed = bool(before_D.any()) and bool(fake_D.any())
        if closed:
            three_3D = torch.stack((fake_D, before_D, found_D))
            self.sums_3D = self.sums_3D + three_3D
            self.norms_3 = self.norms_3 + three_3D.norm(dim=1)
            self.fakes_1 = self.fakes_1 + 1
        self.open_2D = torch.stack((found_D, torch.zeros_like(found_D)))
        return closed

    def score(self) -> float:
        """Return the score between 0 and 1; 1/2 before any fake counts."""
        fake_D, before_D, after_D = self.sums_3D
        fake, before, after = (self.norms_3 / self.fakes_1.clamp(min=1)).tolist()
        apart, among = abs(fake - (before + after) / 2), abs(before - after)
        found = _angle(fake_D, before_D + after_D) * apart - _angle(before_D, after_D) * among
        return 1 / (1 + math.exp(-_ALPHA * found / (apart + among + _EPS)))


def _angle(first_D: Tensor, second_D: Tensor) -> float:
    cosine = torch.nn.functional.cosine_similarity(first_D, second_D, dim=0)
    return math.acos(max(-1.0, min(1.0, float(cosine))))
