"""The pairs whose instruction explains their response best, by a model's losses.

IRA = L(y) - L(y | x), by how much a response's mean token loss falls once its instruction is known (FedDQC, Du et al.,
2024, https://arxiv.org/abs/2410.11540, section 3.2; higher is better aligned).

Deviations: the bound is a quantile of each client's own scores, as a bound for all would empty the clients of a domain
that the model does not know.
"""

from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar

import numpy as np

from fedloom.base.machine import Device, device_of
from fedloom.base.plugin import Fraction, default, lookup, plugin
from fedloom.contracts.examples import chat
from fedloom.contracts.federated import ModelFamily, Task
from fedloom.contracts.language import language_model
from fedloom.contracts.synthesis import Around, Candidate, Filter, Verdict
from fedloom.evaluation.difficulty import difficulties

__all__ = ["Quality"]


@plugin("quality")
class Quality(Filter):
    """Drops the share of a client's pairs with the lowest IRA."""

    reasons: ClassVar[tuple[str, ...]] = ("low_quality", "not_scored")
    looks_at: ClassVar[frozenset[str]] = frozenset({"response"})

    drop: Fraction = 0.25
    """Share of the pairs that is dropped."""
    model: ModelFamily = field(default_factory=default(ModelFamily, "causal_lm"))
    """The model whose losses are taken."""
    device: Device = "auto"
    """What scores the pairs."""

    def __call__(self, candidates: Sequence[Candidate], around: Around) -> list[Verdict]:
        """Return a verdict and the IRA, in nats a token, for each candidate beside the client's others."""
        model = language_model(self.model.build(seed=0, device=device_of(self.device)))
        task = lookup(Task, "sft")()
        examples = [chat(one.instruction, one.response) for one in candidates]
        found = difficulties(model, task, model.trainable, examples)
        scores = [one.alignment if one.given.weight else None for one in found]
        known = [score for score in scores if score is not None]
        least = float(np.quantile(known, self.drop, method="higher")) if known else 0.0
        return [self._verdict(score, least) for score in scores]

    def _verdict(self, score: float | None, least: float) -> Verdict:
        if score is None:
            return Verdict("not_scored")
        return Verdict("low_quality" if score < least else "", score)

    def identity(self) -> str:
        """Return the hash of the model."""
        return self.model.identity()

    def brings_in(self) -> str:
        """A candidate is kept or dropped beside the others."""
        return "filters: 'quality'"
