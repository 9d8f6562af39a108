"""Gaussian noise on the rows that leave a client, a multiple of their own size: empirical, with no guarantee.

    sent = rows + times * RMS * z        z standard normal, a number for each of the rows'

RMS is the root mean square of all numbers of that client and that kind of message in the round so far, these among
them: states and gradients differ by orders of magnitude, and either changes while a model is trained. The client
trains on what comes of the noisy rows, so that the model learns to bear it (noise-aware training, 5.3 of the
specification).

z is drawn by name (`whose`, client, step, micro-batch, kind): a round that is made again sends the same bytes.
Whoever knows the names can take the noise off again, so that between machines they begin with a secret of the
client's (`AtClient`); in one process they are the run's seed.

Shapes: N tokens, D width.

Deviations: FedSEA-LLaMA (arXiv:2505.15683) has an absolute size, 0.02 sqrt(pi / 2), on states alone; states of other
depths and models are larger (5.5 of the specification). Nothing is clipped and nothing is accounted for.
"""

from collections import defaultdict

import torch
from torch import Tensor

from fedloom.base.rng import named_normal
from fedloom.split.messages import Kind

__all__ = ["Noise"]


class Noise:
    """The noise of one round's clients."""

    def __init__(self, times: float, whose: tuple[str | int, ...]) -> None:
        """Take the standard deviation over the rows' root mean square, and what names the draws of the round."""
        self._times, self._whose = times, whose
        self._so_far = defaultdict[tuple[str, Kind], list[float]](lambda: [0.0, 0.0])

    def on(self, rows_ND: Tensor, kind: Kind, client: str, step: int, micro: int) -> Tensor:
        """Return the rows [N, D] as they may leave; without noise they are the same object."""
        if not self._times:
            return rows_ND
        so_far = self._so_far[client, kind]
        so_far[0] += float(rows_ND.detach().double().square().sum())
        so_far[1] += rows_ND.numel()
        scale = self._times * (so_far[0] / max(1.0, so_far[1])) ** 0.5
        z_X = named_normal(*self._whose, client, step, micro, kind, "noise")(rows_ND.numel())
        return torch.add(rows_ND.detach().float(), z_X.view(rows_ND.shape).to(rows_ND.device), alpha=scale)
