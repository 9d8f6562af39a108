"""The loss of every supervised token by itself, for what looks at single tokens."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fedloom.base.tree import Tree
from fedloom.contracts.federated import Task
from fedloom.contracts.language import Encoded, LanguageModel
from fedloom.tasks._losses import passes

__all__ = ["token_losses"]


def token_losses(task: Task, model: LanguageModel, params: Tree, items: Sequence[Encoded]) -> list[NDArray[np.float64]]:
    """Return for each example the cross-entropy of each of its supervised tokens, in their order."""
    found = [np.empty(0)] * len(items)
    with torch.no_grad():
        for one in passes(task, model, params, [items]):
            losses_S = model.token_losses(one.params, one.batch).double().cpu().numpy()
            sequence_S = one.batch.example_S.cpu().numpy()
            # An example is a sequence, or several neighbouring ones.
            counts_X = np.array(one.batch.items or [1] * len(one.places[0]))
            ends_X = np.cumsum(counts_X)
            for at, place in enumerate(one.places[0]):
                mine_S = (sequence_S >= ends_X[at] - counts_X[at]) & (sequence_S < ends_X[at])
                found[place] = losses_S[mine_S]
    return found
