"""Whether sides that are compared by time have learnt the same: what their models lose on pictures of nobody's."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from benchmarks._pictures import PictureShape, picture_tensors

__all__ = ["HeldOutLoss"]

_COUNT = 2000
_ALIKE = 0.1
"""By which share of what is learnt sides may differ: they meet the same pictures in another order."""


class HeldOutLoss:
    """What models lose on average on pictures that no client owns; `start` is the loss of the module as it is given."""

    def __init__(self, shape: PictureShape, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).cpu()
        self.inputs, self.label_N = picture_tensors(shape, _COUNT, "held out")
        self.start = self.of(self.module.state_dict())

    def of(self, params: Mapping[str, Tensor]) -> float:
        """Return the mean cross-entropy under these parameters."""
        own = {name: tensor.cpu() for name, tensor in params.items()}
        with torch.no_grad():
            scores_NK = functional_call(self.module, own, (self.inputs,))
            return float(functional.cross_entropy(scores_NK, self.label_N))

    def check(self, losses: Mapping[str, float]) -> None:
        """Refuse the losses of sides of which one did not learn, or that learnt something else."""
        most, least = max(losses.values()), min(losses.values())
        if most - least > _ALIKE * (self.start - most):
            raise RuntimeError(f"the sides did not learn the same from a loss of {self.start:.3f}: {dict(losses)}")
