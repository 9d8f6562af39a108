"""Held-out examples of one model, or of several stacked ones, in passes over examples of like length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedloom.base.mean import LossSum, Mean
from fedloom.base.tree import Tree
from fedloom.contracts.federated import Task
from fedloom.contracts.language import Encoded, LanguageModel, PackedBatch
from fedloom.contracts.model import sums_by

__all__ = ["Pass", "losses", "of_active", "passes", "summed_losses", "token_counts"]

_BATCH_TOKENS = 8192  # tokens of a forward pass, padding included


@dataclass(frozen=True)
class Pass:
    """Examples that pass the model together: of which parts, at which places, with which parameters."""

    active: list[int]
    places: list[list[int]]
    params: Tree
    batch: Any

    @property
    def flat(self) -> list[tuple[int, int]]:
        """Part and place of each example, in the order of the batch."""
        return [(part, place) for part, chosen in zip(self.active, self.places, strict=True) for place in chosen]


def of_active(params: Tree, active: Sequence[int], n_parts: int) -> Tree:
    """Return the parameters of some of the stacked clients; of one client alone as they are."""
    if n_parts == 1 or len(active) == n_parts:
        return params
    chosen = {name: tensor[list(active)] for name, tensor in params.items()}
    return chosen if len(active) > 1 else {name: tensor[0] for name, tensor in chosen.items()}


def passes(
    task: Task,
    model: LanguageModel,
    params: Tree,
    parts: Sequence[Sequence[Encoded]],
    *,
    most_tokens: int = _BATCH_TOKENS,
) -> Iterator[Pass]:
    """Yield all examples in batches, the longest of each part first; the model's context knows the batch meanwhile."""
    left = [sorted(range(len(part)), key=lambda i, part=part: -len(part[i].tokens_T)) for part in parts]
    while any(left):
        active = [k for k, places in enumerate(left) if places]
        longest = max(len(parts[k][left[k][0]].tokens_T) for k in active)
        count = max(1, min(most_tokens, _BATCH_TOKENS) // (longest * len(active)))
        places = [left[k][:count] for k in active]
        left = [rest[count:] for rest in left]
        batch = task.collate([[parts[k][i] for i in chosen] for k, chosen in zip(active, places, strict=True)], model)
        model.context.batch = batch
        try:
            yield Pass(active, places, of_active(params, active, len(parts)), batch)
        finally:
            model.context.batch = None


def losses(task: Task, model: LanguageModel, params: Tree, parts: Sequence[Sequence[Encoded]]) -> list[list[Mean]]:
    """Return the loss of each example of each part, in their order."""
    result = [[Mean()] * len(part) for part in parts]
    for one in passes(task, model, params, parts):
        found = task.loss(model, one.params, one.batch)
        pairs = zip(found.total_B.tolist(), found.weight_B.tolist(), strict=True)
        for (part, place), (total, weight) in zip(one.flat, pairs, strict=True):
            result[part][place] = Mean(total, weight)
    return result


def summed_losses(batch: PackedBatch, losses_S: Tensor) -> LossSum:
    """Return the losses of single tokens summed by example, with the tokens of each as its weight."""
    sums = torch.stack((losses_S, torch.ones_like(losses_S)))
    n_examples = len(batch.client_E)
    # One column more than there are examples: nobody's tokens fall into it.
    sums_2E = sums_by(sums, batch.example_S, n_examples + 1)[:, :n_examples]
    total_X, weight_X = batch.by_example(sums_2E.T).T
    return LossSum(total_X, weight_X)


def token_counts(items: Sequence[Encoded]) -> dict[str, int]:
    """Return what happened to examples on their way to tokens."""
    kept = [item for item in items if bool(item.supervised_T.any())]
    return {
        "examples": len(items),
        "kept": len(kept),
        "tokens": sum(len(item.tokens_T) for item in kept),
        "supervised_tokens": sum(int(item.supervised_T.sum()) for item in kept),
        "truncated": sum(item.truncated for item in items),
        "empty_answers": sum(item.empty_answer for item in items),
        "prompts_too_long": sum(item.prompt_too_long for item in items),
        "same_answers": sum(item.same_answers for item in items),
    }
