"""Examples in the order of how well instruction and response fit, best first: what a curriculum goes through.

FedDQC (Du et al., 2024, https://arxiv.org/abs/2410.11540, sections 3.2 and 3.3): a client scores its examples by IRA =
L(y) - L(y | x), the loss of the response that its instruction saves, and trains on them level by level, from high
scores to low ones. This preparation puts them in order; `local.curriculum = 3` trains on three levels of that order one
after another.

Deviations: scores are taken once, before training, by the model of these settings. Levels are equal parts of each
client's own examples, each trained on for an equal part of the rounds, and nothing is dropped: the filter `quality`
does that. An example without a score, being cut off or without an answer, comes last.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import field

from fedloom.base.files import write_atomic
from fedloom.base.machine import Device, device_of
from fedloom.base.plugin import default, plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import ModelFamily, Task
from fedloom.contracts.language import language_model
from fedloom.contracts.stages import Made, Owner, Preparation
from fedloom.evaluation.difficulty import difficulties

__all__ = ["ByAlignment"]


@plugin("by_alignment")
class ByAlignment(Preparation):
    """Sorts a client's examples by IRA, high to low; the scores lie in scores.json, in that order."""

    model: ModelFamily = field(default_factory=default(ModelFamily, "causal_lm"))
    """The model whose losses are taken."""
    task: Task = field(default_factory=default(Task, "sft"))
    """Says how an example becomes tokens; it learns answers."""
    device: Device = "auto"
    """What scores the examples."""

    def __call__(self, examples: Sequence[Example], owner: Owner) -> Made:
        """Return the examples, the best aligned first; those of equal score stay in their order."""
        model = language_model(self.model.build(seed=0, device=device_of(self.device)))
        scores = [one.alignment for one in difficulties(model, self.task, model.trainable, examples)]
        order = sorted(range(len(examples)), key=lambda at: math.inf if math.isnan(scores[at]) else -scores[at])
        if owner.folder is not None:
            told = [None if math.isnan(scores[at]) else scores[at] for at in order]
            write_atomic(owner.folder / "scores.json", json.dumps(told) + "\n")
        return Made([examples[at] for at in order], {"examples": len(examples)})

    def identity(self) -> str:
        """Return the hash of the model."""
        return self.model.identity()

    def brings_in(self) -> str:
        """Each example is one example, yet its place is found beside the others."""
        return "prepare.name = 'by_alignment', which puts examples in an order,"
