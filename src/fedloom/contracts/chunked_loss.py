"""Cross-entropy of single tokens, without the logits of all of them at once where a vocabulary is large.

With h the hidden state of a token and W the frozen output head, loss = logsumexp(W h) - (W h)_target, and its gradient
(softmax(W h) - onehot) W is computed in the same pass over a chunk of tokens, so that neither logits nor softmax
outlive their chunk. For S tokens and V words, memory is S D + chunk V in place of several S V.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fedloom.base.products import linear

__all__ = ["LARGE", "ChunkedLoss", "piece_size", "token_loss"]

LARGE = 1 << 24
"""Numbers of a logit matrix that may be held at once: 64 MiB in float32."""
_IN_CACHE = 1 << 21
_ROWS = 160  # tokens for which a head too wide for any cache is read once


def piece_size(device: torch.device) -> int:
    """Return the numbers of a logit matrix from which on it is worth cutting: on a CPU what stays in the cache."""
    return _IN_CACHE if device.type == "cpu" else LARGE


def token_loss(logits_SV: Tensor, targets_S: Tensor) -> Tensor:
    """Return the losses [S], in float32 or better."""
    logits_SV = logits_SV.to(torch.promote_types(logits_SV.dtype, torch.float32))
    return functional.cross_entropy(logits_SV, targets_S, reduction="none")


class ChunkedLoss(torch.autograd.Function):
    """Losses [S] from hidden states [S, D], a frozen head [V, D] and targets [S]."""

    @staticmethod
    def forward(ctx: Any, hidden_SD: Tensor, head_VD: Tensor, bias_V: Tensor | None, targets_S: Tensor) -> Tensor:
        """Return the losses, and keep their gradient by h."""
        wants_grad = ctx.needs_input_grad[0]
        size = max(_ROWS, piece_size(head_VD.device) // len(head_VD))
        losses: list[Tensor] = []
        grads: list[Tensor] = []
        for hidden, targets in zip(hidden_SD.split(size), targets_S.split(size), strict=True):
            logits = linear(hidden, head_VD, bias_V)
            logs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)
            losses.append(-logs.gather(1, targets[:, None])[:, 0])
            if wants_grad:
                slope = logs.exp_()
                slope[torch.arange(len(targets), device=targets.device), targets] -= 1
                grads.append(linear(slope.to(head_VD.dtype), head_VD.T))
        ctx.save_for_backward(torch.cat(grads) if wants_grad else hidden_SD.new_zeros(0))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the hidden states."""
        (slope_SD,) = ctx.saved_tensors
        return (grads[0][:, None] * slope_SD).to(slope_SD.dtype), None, None, None
