"""T5: the targets from the gradient at the states before the output part, by soft labels that would give it.

TAG (Deng et al., 2021, https://arxiv.org/abs/2103.06819, eq. 4 and 5): labels q = softmax(Z) are moved so that the
gradient they give, J^T (p - q), is the one that came, in the 2-norm plus alpha times the 1-norm; p are the
probabilities that the output part gives the states which the server itself sent, J their derivative before softmax.
With the output part's weights known nothing else is unknown. The attacker is taken to know which places are supervised.

The gradient by Z needs the derivative in the other direction, J u, which is taken as the difference of two passes:
adapters and fused attention have no second derivative.

Shapes: S supervised tokens, V vocabulary, T tokens of a text, D width.

Deviations: TAG searches for the texts too, which are not what this gradient tells; the step count and rate are those of
5.3 and 3 of the specification.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fedloom.contracts.language import PackedBatch
from fedloom.models.packing import pack
from fedloom.split.audit.target import Target

__all__ = ["Labels", "read_labels"]

_LR, _ALPHA, _STEP = 0.09, 0.01, 1e-2


@dataclass(frozen=True)
class Labels:
    """What came of the attack on targets."""

    tokens: float
    """Share of supervised tokens that are read."""
    guessed: float
    """Share that the output part's own likeliest tokens are right without the attack."""


def read_labels(target: Target, *, steps: int) -> Labels:
    """Return how many targets of the client's texts are read from one step of training, text by text."""
    right = guessed = total = 0
    for at, text in enumerate(target.texts):
        batch = pack([[text]], target.model.device, width=target.model.width)
        logits = partial(_logits, target, batch)
        states_TD = target.capture.middle[at].to(target.model.device)
        read_S, plain_S = _matched(logits, states_TD, target.capture.slopes[at].to(states_TD), steps)
        right += int((read_S == batch.targets_S).sum())
        guessed += int((plain_S == batch.targets_S).sum())
        total += len(batch.targets_S)
    return Labels(right / max(1, total), guessed / max(1, total))


def _logits(target: Target, batch: PackedBatch, states_TD: Tensor) -> Tensor:
    rear = target.ends.rear
    rear.context.batch, rear.context.seeds = batch, ()
    return replace(rear, given=states_TD).token_logits(rear.of(target.known), batch).float()


def _matched(
    logits: Callable[[Tensor], Tensor], states_TD: Tensor, slope_TD: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Return the labels [S] whose gradient is nearest to the one that came, and the likeliest tokens [S]."""
    leaf = states_TD.detach().clone().requires_grad_()
    out_SV = logits(leaf)
    p_SV = out_SV.detach().softmax(1)
    z_SV = torch.zeros_like(p_SV).requires_grad_()
    optimiser = torch.optim.Adam([z_SV], lr=_LR)
    for _ in range(steps):
        q_SV = z_SV.softmax(1)
        (given_TD,) = torch.autograd.grad(out_SV, [leaf], (p_SV - q_SV).detach(), retain_graph=True)
        away_TD = given_TD - slope_TD
        u_TD = away_TD / away_TD.norm().clamp(min=1e-20) + _ALPHA * away_TD.sign()
        optimiser.zero_grad()
        (-(q_SV * _along(logits, states_TD, u_TD))).sum().backward()
        optimiser.step()
    return z_SV.detach().argmax(1), p_SV.argmax(1)


def _along(logits: Callable[[Tensor], Tensor], states_TD: Tensor, u_TD: Tensor) -> Tensor:
    """Return J u [S, V]: how the logits change along a direction."""
    far = _STEP * states_TD.norm() / u_TD.norm().clamp(min=1e-20)
    with torch.no_grad():
        ahead, behind = logits(states_TD + far * u_TD), logits(states_TD - far * u_TD)
    return (ahead - behind) / (2 * far)
