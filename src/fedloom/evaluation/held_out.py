"""A model over held-out examples: one line of scores per example, added up only when they are printed."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fedloom.base.errors import DataError, TrainingError
from fedloom.base.mean import Mean, summed
from fedloom.base.tree import Tree, stack
from fedloom.contracts.examples import Chat, Example, Turn
from fedloom.contracts.federated import Item, Metric, Model, Prediction, Task
from fedloom.evaluation.statistics import ScoreTable

__all__ = ["Examinee", "HeldOut", "Scored", "evaluate", "group_means", "held_out", "score_table"]


@dataclass(frozen=True)
class HeldOut:
    """Examples that nothing was trained on, encoded once."""

    name: str
    examples: tuple[Example, ...]
    items: Sequence[Item]
    numbers: tuple[int, ...]
    """The examples' places in the whole set, kept by a part of it."""

    def of_clients(self, clients: Sequence[str]) -> "HeldOut":
        """Return the part of the set that belongs to any of the clients."""
        chosen = [i for i, example in enumerate(self.examples) if example.tags.get("client") in clients]
        examples, items = tuple(self.examples[i] for i in chosen), tuple(self.items[i] for i in chosen)
        return HeldOut(self.name, examples, items, tuple(self.numbers[i] for i in chosen))


@dataclass(frozen=True)
class Scored:
    """The scores of one model on one example; `owner` is the client whose model it is, "" for a shared one."""

    set: str
    index: int
    owner: str
    tags: Mapping[str, str]
    scores: Mapping[str, Mean]
    prompt: str = ""
    reference: str = ""
    prediction: str = ""

    def as_record(self) -> dict[str, Any]:
        """Return the scored example as a JSON record."""
        plain = {key: value for key, value in vars(self).items() if key != "scores"}
        return plain | {"scores": {name: [mean.total, mean.weight] for name, mean in self.scores.items()}}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Scored":
        """Return the scored example of a JSON record."""
        scores = {name: Mean(total, weight) for name, (total, weight) in record["scores"].items()}
        texts = {name: str(record[name]) for name in ("prompt", "reference", "prediction")}
        return cls(record["set"], record["index"], record["owner"], record["tags"], scores, **texts)


def held_out(name: str, examples: Sequence[Example], task: Task, model: Model) -> tuple[HeldOut, list[Item]]:
    """Return examples encoded for evaluation, and all encodings for the counts.

    An example without a supervised token (its prompt fills max_length) has no loss: it is counted, not kept. A set
    left with none is refused.
    """
    items = [task.encode(example, model) for example in examples]
    kept = [index for index, item in enumerate(items) if task.targets(item)]
    if not kept:
        raise DataError(f"{name}: none of {len(items)} examples has a supervised token; raise max_length.")
    learnable = task.prepared([items[index] for index in kept], model)
    chosen = tuple(examples[index] for index in kept), learnable
    return HeldOut(name, *chosen, tuple(kept)), items


@dataclass(frozen=True)
class Examinee:
    """A model to be evaluated: whose it is ("" for a shared one), its trained numbers, and what it is asked."""

    owner: str
    params: Tree
    held: HeldOut


def evaluate(
    model: Model,
    task: Task,
    examinees: Sequence[Examinee],
    *,
    metrics: Mapping[str, Metric],
    max_new_tokens: int,
    shown: Sequence[Turn] = (),
) -> list[list[Scored]]:
    """Return the scores of every example of each examinee: what the task tells, and each metric on the greedy answer.

    Answers are written after the turns `shown`, which have no part in what the task tells.
    Several examinees pass the model together and need a model whose trained tensors may be stacked. Their numbers are
    those of one by one up to the rounding of sums.
    """
    if not examinees:
        return []
    params = examinees[0].params if len(examinees) == 1 else stack([one.params for one in examinees])
    with torch.no_grad():
        told = task.scores(model, params, [one.held.items for one in examinees])
        for one, scores in zip(examinees, told, strict=True):
            _check_finite(one, scores)
        written: list[list[Prediction]] = [[] for _ in examinees]
        if metrics:
            asked = [_after(shown, one.held.examples) for one in examinees]
            written = task.predict(model, params, asked, max_new_tokens=max_new_tokens)
            _check_room(shown, written)
    return [_scored(*words, metrics) for words in zip(examinees, told, written, strict=True)]


def _after(shown: Sequence[Turn], examples: Sequence[Example]) -> Sequence[Example]:
    """Return conversations with turns before them."""
    if not shown:
        return examples
    chats = [one for one in examples if isinstance(one, Chat)]
    if len(chats) < len(examples):
        raise DataError("evaluation.shown: examples are shown before conversations alone; set it to 0.")
    return [replace(one, turns=(*shown, *one.turns)) for one in chats]


def _check_room(shown: Sequence[Turn], written: Sequence[Sequence[Prediction]]) -> None:
    """Refuse examples before questions that leave no room for an answer: it would count as a wrong one."""
    without = sum(not prediction.n_tokens for part in written for prediction in part) if shown else 0
    if without:
        raise DataError(
            f"evaluation.shown: {without} questions are too long with {len(shown) // 2} examples before them; show "
            "fewer, or raise task.max_length."
        )


def _check_finite(one: Examinee, told: Sequence[Mapping[str, Mean]]) -> None:
    bad = [number for number, scores in zip(one.held.numbers, told, strict=True) if not _finite(scores)]
    if bad:
        whose = f"the model of client '{one.owner}'" if one.owner else "the model"
        raise TrainingError(
            f"{one.held.name}: {whose} has no finite loss on example {bad[0]}; lower local.lr or check the base model."
        )


def _scored(
    one: Examinee,
    told: Sequence[Mapping[str, Mean]],
    predictions: Sequence[Prediction],
    metrics: Mapping[str, Metric],
) -> list[Scored]:
    result: list[Scored] = []
    for index, example in enumerate(one.held.examples):
        scores = dict(told[index])
        text = ""
        if predictions:
            text = predictions[index].text
            scores |= {name: metric(example, predictions[index]) for name, metric in metrics.items()}
        place = (one.held.name, one.held.numbers[index], one.owner)
        question = example.prompt[-1].text if example.prompt else ""
        result.append(Scored(*place, example.tags, scores, question, example.reference, text))
    return result


def _finite(scores: Mapping[str, Mean]) -> bool:
    return all(math.isfinite(score.total) for score in scores.values())


def group_means(scored: Sequence[Scored], score: str, key: Callable[[Scored], str]) -> dict[str, Mean]:
    """Return the mean of a score by group, in the order of first appearance; examples without it are left out."""
    return summed((key(one), one.scores[score]) for one in scored if score in one.scores)


def score_table(scored: Sequence[Scored], score: str, cluster: str = "") -> ScoreTable:
    """Return a score as totals and weights [C, N]: a row per owner, a column per question, both sorted by name.

    Sorted, so that the tables of two runs with the same questions and owners lie on each other. Weight 0 stands where
    an owner was not asked. `cluster` is the tag of questions about one thing.
    """
    having = [one for one in scored if score in one.scores]
    owners = sorted({one.owner for one in having})
    tags = {(one.set, one.index): one.tags for one in having}
    questions = sorted(tags)
    clients, clusters = (tuple(tags[at].get(name, "") for at in questions) for name in ("client", cluster))
    row, column = {o: i for i, o in enumerate(owners)}, {q: i for i, q in enumerate(questions)}
    total_CN, weight_CN = np.zeros((len(owners), len(questions))), np.zeros((len(owners), len(questions)))
    for one in having:
        place = row[one.owner], column[one.set, one.index]
        total_CN[place], weight_CN[place] = one.scores[score].total, one.scores[score].weight
    return ScoreTable(total_CN, weight_CN, clients, tuple(owners), clusters)
