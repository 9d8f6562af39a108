"""How many rows to drop: as many as a setting says, or as the scores of the round show.

The estimate is fedloom's own. Scores rise with suspicion. Of the gaps between neighbouring scores from the median up,
each relative to the score below it, the largest divides the rows; those above it are dropped if the theorem allows so
many, and none otherwise. Nobody needs to know how many attackers there are, and a round without any loses an honest row
or two. It is read from the rule's own scores alone, never from the truth of a simulation.
"""

from dataclasses import dataclass

from torch import Tensor

from fedloom.base.plugin import Count
from fedloom.federated.aggregators._rows import OfRows

__all__ = ["Bearing", "above_the_gap", "ranked"]


@dataclass(frozen=True, kw_only=True)
class Bearing(OfRows):
    """A rule that bears up to f attackers among the rows of a round."""

    f: Count = 1
    """Attackers among the rows of a round, at most; not read where it is estimated."""
    estimate: bool = False
    """Whether f is found anew in each round, from the scores of its rows."""

    def suspects(self, score_N: Tensor, most: int) -> int:
        """Return f, estimated from scores that rise with suspicion if that is asked for; `most` are allowed."""
        return above_the_gap(score_N, most) if self.estimate else self.f

    def measured(self, f: int) -> dict[str, float]:
        """Return what is told of the round: f where it was estimated."""
        return {"f": float(f)} if self.estimate else {}


def above_the_gap(score_N: Tensor, most: int) -> int:
    """Return how many scores lie above the largest relative gap, 0 if those are more than `most`.

    >>> import torch
    >>> above_the_gap(torch.tensor([1.0, 1.1, 9.0, 1.2, 1.3]), 2)
    1
    """
    rising = sorted(score_N.tolist())
    n_rows = len(rising)
    gaps = {
        n_rows - 1 - at: (rising[at + 1] - rising[at]) / rising[at] if rising[at] > 0 else float("inf")
        for at in range((n_rows - 1) // 2, n_rows - 1)
        if rising[at + 1] > rising[at]
    }
    found = max(gaps, key=lambda count: gaps[count], default=0)
    return found if found <= most else 0


def ranked(score_N: Tensor, tie_N: Tensor) -> list[int]:
    """Return the rows by rising score; equal scores by the other number, so that no order of arrival decides."""
    score, tie = score_N.tolist(), tie_N.tolist()
    return sorted(range(len(score)), key=lambda index: (score[index], tie[index]))
