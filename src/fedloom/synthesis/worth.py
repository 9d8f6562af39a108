"""What generated examples are worth to a client: how well its own are told apart by who learnt from them alone.

A linear classifier learns the generated examples and is asked for the client's own: q = max(0, 1 - L / log C) with L
its mean cross-entropy in nats and C the number of classes, so that guessing is worth nothing. No such weight is in
FedGC (arXiv 2312.05807); it answers that no domain fits every generator.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fedloom.contracts.examples import Example
from fedloom.contracts.labelled import Picture, Row
from fedloom.text.embedding import counted

__all__ = ["features", "worth"]

_STEPS = 200
_DECAY = 1e-2  # few examples, many numbers


def features(examples: Sequence[Example]) -> Tensor:
    """Return numbers [E, D] of examples of one kind and shape: pixels, values, or counts of a text's letters."""
    if isinstance(examples[0], Picture | Row):
        arrays = [torch.from_numpy(one.inputs.copy()).flatten() for one in examples if isinstance(one, Picture | Row)]
        return torch.stack(arrays)
    return torch.from_numpy(counted([one.text for one in examples])).float()


def worth(generated: Sequence[Example], own: Sequence[Example], labels: Sequence[str], by: str) -> float:
    """Return q in [0, 1]; 0 where there is nothing to learn from or to be asked, 1 where there is one class alone."""
    if not generated or not own:
        return 0.0
    if len(labels) < 2:
        return 1.0
    inputs = features([*generated, *own])
    learnt_ED, asked_ED = inputs[: len(generated)], inputs[len(generated) :]
    centre_D, spread_D = learnt_ED.mean(0), learnt_ED.std(0, correction=0).clamp(min=1e-6)
    places = {label: at for at, label in enumerate(labels)}
    learnt_E, asked_E = (torch.tensor([places[one.tags[by]] for one in part]) for part in (generated, own))
    linear = _fitted((learnt_ED - centre_D) / spread_D, learnt_E, len(labels))
    # A pixel that no generated example has would throw a single one of the client's own far out.
    scores_EC = ((asked_ED - centre_D) / spread_D).clamp(-5, 5) @ linear[:-1] + linear[-1]
    loss = functional.cross_entropy(scores_EC, asked_E).item()
    return max(0.0, 1 - loss / math.log(len(labels)))


def _fitted(inputs_ED: Tensor, label_E: Tensor, n_classes: int) -> Tensor:
    """Return weights [D + 1, C] of a softmax regression, the last row those of the constant, by L-BFGS."""
    weights = torch.zeros(inputs_ED.shape[1] + 1, n_classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = functional.cross_entropy(inputs_ED @ weights[:-1] + weights[-1], label_E)
        loss = loss + _DECAY * weights[:-1].square().sum() / 2
        loss.backward()
        return loss

    optimiser.step(closure)
    return weights.detach()
