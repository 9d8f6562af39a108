"""What a trained model says of secrets and examples: losses token by token, greedy answers, candidates in places."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.base.plugin import lookup
from fedloom.base.tree import Tree
from fedloom.contracts.evaluation import Metric
from fedloom.contracts.examples import Chat, Example
from fedloom.contracts.federated import Item
from fedloom.contracts.language import language_model
from fedloom.evaluation.held_out import Examinee, evaluate, held_out
from fedloom.federated.rounds import State
from fedloom.runs.leakage.attacks import first_place
from fedloom.runs.leakage.secrets import KINDS, Planting, Secret
from fedloom.runs.prepared import Prepared
from fedloom.tasks.token_losses import token_losses

__all__ = ["CANDIDATES", "Looking", "learnable"]

Array = NDArray[np.float64]

CANDIDATES = 16
"""Entities that a masked place may be filled with, the true one among them."""

_VERBATIM = "exact_match"


@dataclass(frozen=True)
class Looking:
    """One set of parameters of a run's model, to be looked at."""

    ready: Prepared
    params: Tree

    @classmethod
    def at(cls, ready: Prepared, state: State) -> "Looking":
        """Look at the model as it is in a state."""
        return cls(ready, ready.layout.tree(state.params_P.to(ready.model.device)))

    def token_losses(self, items: Sequence[Item]) -> list[Array]:
        """Return the losses of each item's learnt tokens."""
        return token_losses(self.ready.run.task, language_model(self.ready.model), self.params, items)

    def losses(self, examples: Sequence[Example]) -> Array:
        """Return the mean loss of each example's learnt tokens."""
        items = [self.ready.run.task.encode(example, self.ready.model) for example in examples]
        return np.array([float(losses.mean()) for losses in self.token_losses(items)])

    def verbatim(self, examples: Sequence[Example]) -> list[float]:
        """Return for each conversation whether the greedy answer is the true one word for word; documents are skipped.

        Extraction with the true prefix known (Carlini et al. 2023, https://arxiv.org/abs/2202.07646, definition 3.1).
        Case, surrounding white space and a final full stop do not count, as in the metric `exact_match`.
        """
        task, model = self.ready.run.task, self.ready.model
        chats = [example for example in examples if isinstance(example, Chat)]
        if not chats:
            return []
        held, items = held_out("leakage", chats, task, model)
        longest = max(map(task.targets, items))
        metrics = {_VERBATIM: lookup(Metric, _VERBATIM)()}
        (scored,) = evaluate(model, task, [Examinee("", self.params, held)], metrics=metrics, max_new_tokens=longest)
        return [one.scores[_VERBATIM].value for one in scored]

    def reconstructed(self, sentences: Sequence[Secret], planting: Planting) -> dict[str, list[float]]:
        """Return for each kind of entity whether the true one of each sentence comes first among the candidates."""
        seed, found = self.ready.run.seed, dict[str, list[float]]()
        for kind, pool in KINDS.items():
            filled: list[Secret] = []
            for at, one in enumerate(sentences):
                others = [name for name in pool if name != one.entities[kind]]
                drawn = rng.python_random("leakage", seed, "candidates", kind, at).sample(others, CANDIDATES - 1)
                filled += [one, *(one.naming(kind, other) for other in drawn)]
            loss_NC = self.losses([planting.probe(one) for one in filled]).reshape(-1, CANDIDATES)
            found[kind] = [float(first_place(float(row[0]), row[1:])) for row in loss_NC]
        return found


def learnable(ready: Prepared, examples: Sequence[Example]) -> tuple[list[Example], list[Item]]:
    """Return the examples of which something is learnt, encoded."""
    items = [ready.run.task.encode(example, ready.model) for example in examples]
    kept = [at for at, item in enumerate(items) if ready.run.task.targets(item)]
    return [examples[at] for at in kept], [items[at] for at in kept]
