"""Classification of labelled numbers, pictures and rows alike: the cross-entropy of each example's label.

L = -log softmax(f(x))_y (Goodfellow et al., 2016, Deep Learning, eq. 6.30). A held-out example tells its loss, whether
the likeliest class is right, that class's probability, and Brier's score, sum_c (p_c - [c = y])^2 (Brier, 1950). What
the model answers is the name of the likeliest class, so that metrics of answers and of corpora hold, too.

Shapes: E examples, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.mean import LossSum, Mean
from fedloom.base.plugin import plugin
from fedloom.base.tree import Tree
from fedloom.contracts.federated import Prediction, Task
from fedloom.contracts.labelled import ClassifierModel, Labelled, Picture, Row
from fedloom.contracts.model import Batch, Model
from fedloom.models.side_by_side import side_by_side

__all__ = ["Classify"]

_AT_ONCE = 256  # held-out examples that pass the model together


@dataclass(frozen=True, kw_only=True)
class _Labelled(Batch):
    inputs: Tensor
    """[E, ...]"""
    label_E: Tensor
    counts_E: Tensor
    """1, or 0 of what fills up a client's part to the length of the others."""


@dataclass(frozen=True)
class _Item:
    inputs: Tensor
    label: int


@dataclass(frozen=True)
class _Items(Sequence[_Item]):
    """Items as rows of an array, so that a batch is a few copies and not as many as it has examples.

    Of numpy: so few rows are picked there in a fifth of the time that torch takes.
    """

    inputs: NDArray[np.float32]
    """[N, ...]"""
    label_N: NDArray[np.int64]

    @classmethod
    def of(cls, items: Sequence[_Item]) -> "_Items":
        if isinstance(items, _Items):
            return items
        inputs, labels = [item.inputs.numpy() for item in items], [item.label for item in items]
        return cls(np.stack(inputs), np.array(labels, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.label_N)

    @overload
    def __getitem__(self, at: int) -> _Item: ...
    @overload
    def __getitem__(self, at: slice) -> "_Items": ...
    def __getitem__(self, at: int | slice) -> "_Item | _Items":
        if isinstance(at, slice):
            return _Items(self.inputs[at], self.label_N[at])
        return _Item(torch.from_numpy(self.inputs[at]), int(self.label_N[at]))

    def picked(self, places: Sequence[int]) -> "_Items":
        place_E = np.array(places)
        return _Items(self.inputs[place_E], self.label_N[place_E])

    def filled(self, length: int) -> "_Items":
        """Return so many items: these, and the first one again."""
        n_more = length - len(self)
        return self.picked([*range(len(self)), *[0] * n_more]) if n_more else self


@plugin("classify")
class Classify(Task):
    """Which of several classes an example is of."""

    learns: ClassVar[tuple[type[Any], ...]] = (Picture, Row)
    trains: ClassVar[type[Model]] = ClassifierModel
    tells: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "confidence", "brier")

    labels: tuple[str, ...] = ()
    """The classes by name, in the order of the model's scores; everybody knows them. Left out: "0", "1" and so on."""

    def check(self) -> None:
        """Refuse a class named twice."""
        if len(set(self.labels)) < len(self.labels):
            raise ConfigError("labels: found one twice, allowed is each once.")

    def encode(self, example: Labelled, model: ClassifierModel) -> _Item:
        """Return an example's numbers and the place of its label; DataError for another shape or an unknown label."""
        names = self._names(model)
        inputs = torch.from_numpy(example.inputs.copy())
        if tuple(inputs.shape) != model.inputs:
            raise DataError(f"an example of shape {list(inputs.shape)}, the model takes {list(model.inputs)}.")
        if example.label not in names:
            raise DataError(f"label '{example.label}': not among the {len(names)} published, {', '.join(names[:8])}.")
        return _Item(inputs, names.index(example.label))

    def _names(self, model: ClassifierModel) -> tuple[str, ...]:
        names = self.labels or tuple(map(str, range(model.n_classes)))
        if len(names) != model.n_classes:
            raise ConfigError(f"task.labels: found {len(names)}, the model has {model.n_classes} classes.")
        return names

    def size(self, item: _Item) -> int:
        """Return the numbers of an example."""
        return item.inputs.numel()

    def targets(self, item: _Item) -> int:
        """Return 1: every example has a label."""
        return 1

    def counts(self, items: Sequence[_Item]) -> dict[str, int]:
        """Return how many there are; none is cut."""
        return {"examples": len(items), "kept": len(items), "truncated": 0}

    def prepared(self, items: Sequence[_Item], model: ClassifierModel) -> Sequence[_Item]:
        """Return the items as rows of one array."""
        return _Items.of(items) if items else ()

    def picked(self, items: Sequence[_Item], places: Sequence[int]) -> _Items:
        """Return the items at these places as rows of one array."""
        return _Items.of(items).picked(places)

    def collate(self, parts: Sequence[Sequence[_Item]], model: ClassifierModel) -> _Labelled:
        """Return the examples of each client, one after another, filled up to the length of the longest."""
        return _batch(parts, model, max(map(len, parts)))

    def alike(self, parts: Sequence[Sequence[_Item]], model: ClassifierModel) -> list[_Labelled] | None:
        """Return a batch for each part, the shorter ones filled up with what counts nothing."""
        longest = max(map(len, parts))
        return [_batch([part], model, longest) for part in parts] if all(parts) else None

    def loss(self, model: ClassifierModel, params: Tree, batch: _Labelled) -> LossSum:
        """Return the cross-entropy of each example."""
        scores_EC = _scores(model, params, batch.inputs)
        # Of few classes the logarithms are taken in half the time with the examples side by side: the same bits.
        lost_E = functional.nll_loss(scores_EC.T.log_softmax(0).T, batch.label_E, reduction="none")
        return LossSum(lost_E * batch.counts_E, batch.counts_E)

    def scores(
        self, model: ClassifierModel, params: Tree, parts: Sequence[Sequence[_Item]]
    ) -> list[list[dict[str, Mean]]]:
        """Return what each held-out example tells."""
        return [
            [_told(*row) for row in zip(*_summed(probabilities_EC, labels_E), strict=True)]
            for probabilities_EC, labels_E in self._asked(model, params, parts)
        ]

    def predict(
        self, model: ClassifierModel, params: Tree, parts: Sequence[Sequence[Any]], *, max_new_tokens: int
    ) -> list[list[Prediction]]:
        """Return the name of each example's likeliest class."""
        names = self._names(model)
        items = [[self.encode(example, model) for example in part] for part in parts]
        return [
            [Prediction(names[place], 1) for place in probabilities_EC.argmax(dim=1).tolist()]
            for probabilities_EC, _ in self._asked(model, params, items)
        ]

    def _asked(
        self, model: ClassifierModel, params: Tree, parts: Sequence[Sequence[_Item]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Return the probabilities [E, C] of each part's examples, and their labels [E]."""
        found: list[tuple[Tensor, Tensor]] = []
        for place, part in enumerate(parts):
            own = params if len(parts) == 1 else model.of_one(params, place)
            pieces = [part[start : start + _AT_ONCE] for start in range(0, len(part), _AT_ONCE)]
            batches = [self.collate([piece], model) for piece in pieces]
            rows = [_scores(model, own, batch.inputs).softmax(dim=1) for batch in batches]
            empty = torch.zeros(0, model.n_classes), torch.zeros(0, dtype=torch.int64)
            labels = [batch.label_E for batch in batches]
            found.append((torch.cat(rows).cpu(), torch.cat(labels).cpu()) if rows else empty)
        return found


def _scores(model: ClassifierModel, params: Tree, inputs: Tensor) -> Tensor:
    """Return the scores [E, C], of several clients' examples one client after another where parameters have an axis."""
    name, first = next(iter(params.items()))
    if not model.stackable or first.dim() == model.module.get_parameter(name).dim():
        return functional_call(model.module, params, (inputs,))
    return side_by_side(model.module, params, inputs.unflatten(0, (len(first), -1))).flatten(0, 1)


def _batch(parts: Sequence[Sequence[_Item]], model: ClassifierModel, length: int) -> _Labelled:
    """Return the examples of each client, each part filled up to the length with what counts nothing."""
    owners = [place for place, part in enumerate(parts) if part]
    filled = [_Items.of(parts[place]).filled(length) for place in owners]
    n_own_K1 = np.array([len(parts[place]) for place in owners])[:, None]
    device = model.device
    return _Labelled(
        client_E=torch.from_numpy(np.repeat(owners, length)).to(device),
        inputs=torch.from_numpy(np.concatenate([part.inputs for part in filled])).to(device),
        label_E=torch.from_numpy(np.concatenate([part.label_N for part in filled])).to(device),
        counts_E=torch.from_numpy((np.arange(length) < n_own_K1).ravel()).to(device, torch.float32),
    )


def _summed(probabilities_EC: Tensor, labels_E: Tensor) -> tuple[list[float], ...]:
    right_E1 = probabilities_EC.gather(1, labels_E[:, None])
    confidence_E, place_E = probabilities_EC.max(dim=1)
    brier_E = (probabilities_EC**2).sum(1) - 2 * right_E1[:, 0] + 1
    loss_E = -right_E1[:, 0].clamp(min=torch.finfo().tiny).log()
    told = loss_E, (place_E == labels_E).float(), confidence_E, brier_E
    return tuple(values_E.tolist() for values_E in told)


def _told(*values: float) -> dict[str, Mean]:
    return {name: Mean(value, 1.0) for name, value in zip(Classify.tells, values, strict=True)}
