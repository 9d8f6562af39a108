"""Federated averaging as a plain PyTorch loop: a copy of the module and a DataLoader per client, states averaged.

Algorithm 1 of McMahan et al. (2017, https://arxiv.org/abs/1602.05629) as tutorials and research code write it. Pictures
lie in memory as float32 already, so that no decoding or transform is on this side's bill.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

__all__ = ["Batches", "PlainRounds", "shuffled"]

State = Mapping[str, Tensor]
Batches = Iterable[Sequence[Tensor]]


def shuffled(inputs: Tensor, labels: Tensor, batch: int) -> Batches:
    """Return a client's batches: a shuffle of all its examples, drawn anew each time it is iterated over."""
    return DataLoader(TensorDataset(inputs, labels), batch_size=batch, shuffle=True)


class PlainRounds:
    """Rounds of the loop, one after another; `examples` counts those that the last one trained on."""

    def __init__(self, module: nn.Module, clients: Sequence[Batches], *, lr: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_()
        self.clients, self.lr = clients, lr
        self.device = next(module.parameters()).device
        self.examples = 0

    @property
    def params(self) -> State:
        """What is trained, after the last round."""
        return self.module.state_dict()

    def __call__(self) -> None:
        """Run one more round."""
        self.examples = 0
        states = [self._trained(batches) for batches in self.clients]
        self.module.load_state_dict({name: _mean([state[name] for state in states]) for name in states[0]})

    def _trained(self, batches: Batches) -> State:
        """Return a client's state after one pass over its examples."""
        module = copy.deepcopy(self.module).train()
        optimiser = torch.optim.SGD(module.parameters(), lr=self.lr)
        for inputs, labels in batches:
            optimiser.zero_grad()
            scores = module(inputs.to(self.device))
            functional.cross_entropy(scores, labels.to(self.device)).backward()
            optimiser.step()
            self.examples += len(labels)
        return module.state_dict()


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).mean(0)
