"""The extension points of training on a few pages; what has a page of its own beside this one is named here too.

Shape letters, here and everywhere: N rows of a round, P numbers in a row, K stacked clients, B examples, T tokens,
R rank of an adapter, D and O input and output width of a layer, V vocabulary.

A plug-in is a frozen object with pure methods: it derives from one family below and from nothing else, keeps no state,
and its fields are its settings. What must be kept between rounds lives in `Slots`.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fedloom.base.mean import LossSum, Mean
from fedloom.base.plugin import Family
from fedloom.base.tree import Layout, Slots, Tree
from fedloom.contracts.aggregation import Accumulator, Aggregate, Aggregator, Frame, Server
from fedloom.contracts.attack import Attack
from fedloom.contracts.data import Partition, Source
from fedloom.contracts.evaluation import CorpusMetric, Metric
from fedloom.contracts.examples import Chat, Document
from fedloom.contracts.language import LanguageModel, Piece, Template
from fedloom.contracts.lineage import Lineage
from fedloom.contracts.local_settings import LocalSettings
from fedloom.contracts.messages import Earlier, Job, Local, PrivacyBudget, Report
from fedloom.contracts.model import Batch, ForwardContext, Item, Model, Prediction, Shard
from fedloom.contracts.privacy import Mechanism, Noise

__all__ = [
    "Accumulator",
    "Aggregate",
    "Aggregator",
    "Attack",
    "Batch",
    "Carrier",
    "Codec",
    "CorpusMetric",
    "Earlier",
    "Engine",
    "ForwardContext",
    "Frame",
    "Item",
    "Job",
    "Local",
    "Mechanism",
    "Metric",
    "Model",
    "ModelFamily",
    "Noise",
    "Partition",
    "Piece",
    "Plan",
    "Prediction",
    "PrivacyBudget",
    "Report",
    "Rule",
    "Server",
    "ServerOpt",
    "Shard",
    "Sink",
    "Source",
    "Task",
    "Template",
    "Weighting",
    "Work",
]


# ---------------------------------------------------------------------------------------------- federated algorithms


class Rule(Family):
    """One federated algorithm, both halves, pure.

    `correct` and `adjust` are elementwise: they may be handed a whole tree flattened into one tensor, or K clients
    stacked, and must give the same numbers.
    """

    folder = "fedloom.federated.rules"
    uniform_slots: ClassVar[frozenset[str]] = frozenset()
    """Uploaded slots whose mean is uniform over the sampled clients, whatever the run's weighting."""

    def init_shared(self, params: Tree) -> Slots:
        """Return the server's slots before the first round."""
        return {}

    def init_memory(self, params: Tree) -> Slots:
        """Return a client's slots before its first round."""
        return {}

    def correct(self, grad: Tree, params: Tree, local: Local) -> Tree:
        """Return the gradient that the client's optimiser sees."""
        return grad

    def adjust(self, params: Tree, local: Local, *, lr: float) -> Tree:
        """Return the parameters after one optimiser step, adjusted."""
        return params

    @abstractmethod
    def finish(self, params: Tree, local: Local, *, steps: int, lr: float) -> tuple[Slots, Slots]:
        """Return (upload, new memory) after `steps` local steps at learning rate `lr`."""

    @abstractmethod
    def merge(self, shared: Slots, mean: Slots, *, fraction: float) -> tuple[Tree, Slots]:
        """Return (delta, new shared) from the mean upload; `fraction` is sampled clients over all clients."""


class ServerOpt(Family):
    """The server's optimiser: turns the mean change of a round into new parameters."""

    folder = "fedloom.federated.server_opts"

    @abstractmethod
    def init(self, params: Tree) -> Slots:
        """Return the optimiser's slots before the first round."""

    @abstractmethod
    def step(self, params: Tree, delta: Tree, state: Slots, *, round: int) -> tuple[Tree, Slots]:
        """Return (new params, new slots); `round` counts from 0."""

    def gain(self, state: Slots) -> float:
        """Return the mean factor by which the last step scaled its direction; 1 for plain averaging."""
        return 1.0


class Codec(Family):
    """How a row travels: as bytes, exactly or with an error that the client may keep and add to its next row."""

    folder = "fedloom.federated.codecs"
    exact: ClassVar[bool] = False
    """Whether decoding gives back the very row."""

    @abstractmethod
    def encode(self, row_P: Tensor) -> Tensor:
        """Return the row [P], float32 on the CPU, as uint8 numbers: all that crosses the wire."""

    @abstractmethod
    def decode(self, packet: Tensor, size: int) -> Tensor:
        """Return the row [P] of `size` numbers that a packet stands for; a damaged packet raises DataError."""

    def feedback(self) -> bool:
        """Return whether the client adds what encoding lost to its next row."""
        return False


# --------------------------------------------------------------------------------------------------- models and tasks


class ModelFamily(Family):
    """A way to build models."""

    folder = "fedloom.models"
    also = ("fedloom.people.adapter.models",)
    stackable: ClassVar[str] = r"$^"
    """Pattern of the trainable names that may carry a leading client axis."""

    @abstractmethod
    def identity(self) -> str:
        """Return what the built model's answers depend on: hashes of weights, adapter and tokenizer, and settings.

        It is told without the model being loaded; where files lie does not enter.
        """

    @abstractmethod
    def build(self, *, seed: int, device: torch.device, train: str | None = None) -> Model:
        """Return the model, all parameters frozen; `train` is a pattern that selects the trainable names."""

    def lineage(self) -> Lineage:
        """Return how the weights that `build` starts from were trained, as far as fedloom trained them."""
        return ()

    @abstractmethod
    def save(self, model: Model, params: Tree, folder: str) -> None:
        """Write `params` as files that other tools load (PEFT's format for adapters)."""


class Task(Family):
    """What is learnt: examples to items, items to losses, prompts to predictions.

    The task alone looks into its items and batches, and knows what kind of model it trains: `model` below is one of
    the class `trains`, items are what `encode` returns, batches what `collate` returns.
    """

    folder = "fedloom.tasks"
    also = ("fedloom.people.adapter.tasks",)
    learns: ClassVar[tuple[type[Any], ...]] = (Chat, Document)
    """The kinds of examples that it can be trained on."""
    trains: ClassVar[type[Model]] = LanguageModel
    """The kind of model."""
    tells: ClassVar[tuple[str, ...]] = ("loss",)
    """Names of all that `scores` may tell."""

    @abstractmethod
    def encode(self, example: Any, model: Any) -> Item:
        """Return the example as the model takes it; called once per example and run."""

    def examining(self) -> "Task":
        """Return the task by which held-out examples are scored, the same for all that is learnt from an example."""
        return self

    @abstractmethod
    def size(self, item: Any) -> int:
        """Return how many numbers of an item pass the model, tokens of a text: batches and memory go by it."""

    def longest(self) -> int:
        """Return the most that the size of an item may be; 0 where nothing bounds it."""
        return 0

    @abstractmethod
    def targets(self, item: Any) -> int:
        """Return how many predictions of an item are learnt from, supervised tokens of a text; 0: nothing is."""

    @abstractmethod
    def counts(self, items: Sequence[Any]) -> dict[str, int]:
        """Return what happened to examples on their way: `examples`, `kept` and `truncated` among it."""

    def prepared(self, items: Sequence[Any], model: Any) -> Sequence[Item]:
        """Return items with what a pass of the initial model adds; called for a client before it first trains."""
        return list(items)

    def picked(self, items: Sequence[Any], places: Sequence[int]) -> Sequence[Item]:
        """Return the prepared items at these places; a task whose items lie in tensors gives them as such."""
        return [items[at] for at in places]

    @abstractmethod
    def collate(self, parts: Sequence[Sequence[Any]], model: Any) -> Batch:
        """Return the items of each client as one batch on the model's device."""

    def alike(self, parts: Sequence[Sequence[Any]], model: Any) -> Sequence[Batch] | None:
        """Return a batch for each part, all of one shape, to be stacked; None if they cannot pass side by side."""
        return None

    @abstractmethod
    def loss(self, model: Any, params: Tree, batch: Any) -> LossSum:
        """Return totals and weights per example; examples of a batch do not influence one another."""

    @abstractmethod
    def scores(self, model: Any, params: Tree, parts: Sequence[Sequence[Any]]) -> list[list[dict[str, Mean]]]:
        """Return what each held-out example scores without an answer being written, a loss among it, by part.

        Several parts are those of stacked clients, and `params` carry the client axis; one part has no such axis.
        """

    @abstractmethod
    def predict(
        self, model: Any, params: Tree, parts: Sequence[Sequence[Any]], *, max_new_tokens: int
    ) -> list[list[Prediction]]:
        """Return what the model writes for the prompt of each example, greedily; parts and `params` as in `scores`."""


# ------------------------------------------------------------------------------------------------------------ engines


Weighting = Literal["samples", "used_samples", "tokens", "quality", "uniform"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What server and clients of a federated training agree on; it does not change from round to round."""

    rule: Rule
    server_opt: ServerOpt
    aggregator: Aggregator
    codec: Codec
    mechanism: Mechanism
    local: LocalSettings
    weighting: Weighting
    max_weight: int = 0
    """The most that a client counts by; 0: whatever `weighting` says."""
    clients: tuple[str, ...]
    clients_per_round: int
    rounds: int
    seed: int
    stream: str | int
    """What names the draws of the mechanism."""
    layout: Layout
    """Names and shapes of the shared parameters, in the order of a row."""
    budgets: Mapping[str, PrivacyBudget] = field(default_factory=dict[str, PrivacyBudget])
    """What protects each client's data; under "" what protects all of them at once."""
    ranks: Mapping[str, int] = field(default_factory=dict[str, int])
    """The rank of each client's adapters; empty where all have the model's."""
    steps: Mapping[str, int] = field(default_factory=dict[str, int])
    """Optimiser steps of each client in a round; empty where all take `local.steps`."""
    min_clients: int = 0
    """Reports that a round needs; 0: those of all clients asked."""
    enough: int = 0
    """Reports with which a round between machines closes; 0: those of all clients asked."""

    def budget_of(self, client: str) -> str:
        """Return the name of the budget that counts the uses of a client's data."""
        return "" if self.mechanism.covers().at_server else client


@dataclass(frozen=True, kw_only=True)
class Work:
    """The client half of a training: the plan, and what has to be loaded to carry it out."""

    plan: Plan
    model: Model
    task: Task
    shards: Mapping[str, Shard]
    """By client; one that makes them when they are asked for serves more clients than memory holds."""
    private: Tree
    """Initial values of the parameters that are trained but never shared."""
    middle: Tree = field(default_factory=dict[str, Tensor])
    """Initial values of those that the server trains itself, of a split model."""
    attack: Attack | None = None
    poisoned: Mapping[str, Shard] = field(default_factory=dict[str, Shard])
    """What malicious clients train on while the attack is awake, by client: it names them all."""
    keep_ready: int = 0
    """Clients of which what `shard` has worked out is kept, those asked for last; 0: all."""
    _ready: dict[tuple[str, bool], Shard] = field(
        default_factory=dict[tuple[str, bool], Shard], init=False, repr=False, compare=False
    )

    def attacks(self, client: str, round: int) -> bool:
        """Return whether a client attacks in a round."""
        return self.attack is not None and client in self.poisoned and self.attack.awake(round)

    def shard(self, client: str, round: int = 0) -> Shard:
        """Return a client's items with what a pass of the initial model adds: worked out when asked for, and kept.

        It is one pass over the client's items whoever asked and when, so that a run that goes on has the same numbers.
        """
        key = client, self.attacks(client, round)
        if key not in self._ready:
            shard = (self.poisoned if key[1] else self.shards)[client]
            self._ready[key] = replace(shard, items=self.task.prepared(shard.items, self.model))
            if self.keep_ready and len(self._ready) > self.keep_ready:
                del self._ready[next(iter(self._ready))]
        return self._ready[key]


Carrier = Callable[[Iterable[Job]], Iterator[Report]]


class Engine(Family):
    """Carries jobs to clients; decides where and how many at a time they train, never what they compute."""

    folder = "fedloom.federated.engines"
    starts_workers: ClassVar[bool] = False
    """Whether clients train in processes that it starts, none of which may start more."""

    def wave_size(self) -> int:
        """Return how many jobs it takes at a time: those that share one pass of the model."""
        return 1

    def resolved(self, work: Work, *, n_clients: int) -> "Engine":
        """Return the engine with everything chosen that its fields leave open, for so many clients a round.

        What is chosen is written down with the run: a resumed one must not choose anew.
        """
        return self

    @abstractmethod
    def start(self, work: Work) -> Carrier:
        """Return what carries jobs of this work; its reports come back in the order of the jobs."""


# -------------------------------------------------------------------------------------------------------------- events


class Sink(Family):
    """A copy of a run's numbers elsewhere; the run directory stays the record, and a sink that fails stops nothing."""

    folder = "fedloom.runs.sinks"

    @abstractmethod
    def open(
        self, folder: str, table: Mapping[str, Any]
    ) -> AbstractContextManager[Callable[[Mapping[str, Any]], None]]:
        """Return a block that gives what takes one line of `metrics.jsonl` after another, and closes when it ends.

        `folder` is the run directory, `table` its resolved run file. A run that was stopped and goes on opens anew and
        hands over all its lines again, from the first: they replace the copy made before where the other side can do
        that. A missing library is refused here, before the run starts.
        """
