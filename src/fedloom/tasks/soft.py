"""Learning from what another model thinks of each token, besides the token itself.

Knowledge distillation (Hinton et al., 2015, https://arxiv.org/abs/1503.02531, section 2): with p the teacher's and q
the learner's probabilities at temperature T, a token's loss is (1 - share) (-log q_1(token)) + share T^2 KL(p || q).

Deviations: of the teacher's probabilities the k largest are kept, and all others as one: KL is then between such
coarser distributions, never above the whole one and equal to it where k is the vocabulary. Teacher and learner have one
tokenizer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedloom.base.errors import ConfigError
from fedloom.base.mean import LossSum, Mean
from fedloom.base.tree import Tree
from fedloom.contracts.chunked_loss import LARGE
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Prediction, Task
from fedloom.contracts.language import Encoded, LanguageModel, PackedBatch
from fedloom.tasks._losses import passes, summed_losses

__all__ = ["Soft", "Softened", "soft_items"]

_SMALLEST = 1e-9  # of the probability of all other tokens together


@dataclass(frozen=True)
class Soft:
    """An example with the teacher's log-probabilities at its S supervised tokens, and of which k tokens they are."""

    item: Encoded
    logs_SK: Tensor
    index_SK: Tensor


@dataclass(frozen=True, kw_only=True)
class SoftBatch(PackedBatch):
    """A packed batch with the teacher's log-probabilities of what it asks for."""

    logs_SK: Tensor
    index_SK: Tensor


@dataclass(frozen=True)
class Softened(Task):
    """A task whose items are `Soft`; all but the loss is the task's own."""

    inner: Task
    share: float
    """Of the teacher's part in the loss; 0 is the task itself."""
    temperature: float

    def encode(self, example: Example, model: Any) -> Encoded:
        """Return what the task makes of an example; `soft_items` makes it soft."""
        return self.inner.encode(example, model)

    def size(self, item: Soft) -> int:
        """Return the tokens."""
        return self.inner.size(item.item)

    def targets(self, item: Soft) -> int:
        """Return the supervised tokens."""
        return self.inner.targets(item.item)

    def counts(self, items: Sequence[Soft]) -> dict[str, int]:
        """Return the task's counts."""
        return self.inner.counts([one.item for one in items])

    def collate(self, parts: Sequence[Sequence[Soft]], model: LanguageModel) -> SoftBatch:
        """Return the examples as one batch, tokens asked for in the order of the items."""
        batch = self.inner.collate([[one.item for one in part] for part in parts], model)
        items = [one for part in parts for one in part]
        logs_SK = torch.cat([one.logs_SK for one in items]).to(model.device)
        index_SK = torch.cat([one.index_SK for one in items]).to(model.device).long()
        return SoftBatch(**vars(batch), logs_SK=logs_SK, index_SK=index_SK)

    def loss(self, model: LanguageModel, params: Tree, batch: SoftBatch) -> LossSum:
        """Return the summed losses of the supervised tokens of each example, in float32 or better."""
        logits_SV = model.token_logits(params, batch)
        logits_SV = logits_SV.to(torch.promote_types(logits_SV.dtype, torch.float32))
        hard_S = -logits_SV.log_softmax(-1).gather(1, batch.targets_S[:, None])[:, 0]
        logs_SK = (logits_SV / self.temperature).log_softmax(-1).gather(1, batch.index_SK)
        soft_S = self.temperature**2 * _coarse_divergence(batch.logs_SK, logs_SK)
        return summed_losses(batch, (1 - self.share) * hard_S + self.share * soft_S)

    def scores(self, model: Any, params: Tree, parts: Sequence[Sequence[Soft]]) -> list[list[dict[str, Mean]]]:
        """Return the task's scores."""
        return self.inner.scores(model, params, [[one.item for one in part] for part in parts])

    def predict(
        self, model: Any, params: Tree, parts: Sequence[Sequence[Example]], *, max_new_tokens: int
    ) -> list[list[Prediction]]:
        """Return the task's predictions."""
        return self.inner.predict(model, params, parts, max_new_tokens=max_new_tokens)


def _coarse_divergence(teacher_SK: Tensor, learner_SK: Tensor) -> Tensor:
    """Return KL [S] of log-probabilities of the same tokens, those of all others together being one more."""
    rest = [(1 - logs.exp().sum(-1)).clamp(min=_SMALLEST) for logs in (teacher_SK, learner_SK)]
    inside_S = (teacher_SK.exp() * (teacher_SK - learner_SK)).sum(-1)
    return inside_S + rest[0] * (rest[0].log() - rest[1].log())


def soft_items(
    task: Task,
    learner: LanguageModel,
    teacher: LanguageModel,
    examples: Sequence[Example],
    *,
    most: int,
    temperature: float,
) -> list[Soft]:
    """Return the examples with the `most` likeliest tokens of the teacher at each supervised token.

    Raises ConfigError where the two models read an example as different tokens.
    """
    items = [task.encode(example, learner) for example in examples]
    theirs = [task.encode(example, teacher) for example in examples]
    for example, own, other in zip(examples, items, theirs, strict=True):
        if not torch.equal(own.tokens_T, other.tokens_T):
            raise ConfigError(
                f"soft: teacher and learner read {example.text[:40]!r} as different tokens; allowed are models of one "
                "tokenizer and template, or soft = 0."
            )
    found: list[Soft | None] = [None] * len(items)
    with torch.no_grad():
        # All logits of a pass are held at once.
        room = LARGE // len(teacher.tokenizer)
        for one in passes(task, teacher, teacher.trainable, [items], most_tokens=room):
            logs_SV = (teacher.token_logits(one.params, one.batch).float() / temperature).log_softmax(-1)
            logs_SK, index_SK = logs_SV.topk(min(most, logs_SV.shape[-1]), dim=-1)
            counts = _counts(one.batch)
            index_SK = index_SK.int()  # half the memory, over all tokens of all pairs
            parts = zip(one.places[0], logs_SK.cpu().split(counts), index_SK.cpu().split(counts), strict=True)
            for place, logs, index in parts:
                found[place] = Soft(items[place], logs, index)
    return [one for one in found if one is not None]


def _counts(batch: PackedBatch) -> list[int]:
    """Return the tokens that are asked for of each example, which is a sequence or several neighbouring ones."""
    counts_E = batch.example_S.bincount(minlength=len(batch.lines))[: len(batch.lines)]
    return batch.by_example(counts_E).tolist()
