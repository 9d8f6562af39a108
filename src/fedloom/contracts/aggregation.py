"""The contract of aggregation: many rows to one, whole at once or one by one.

Shape letters as in `contracts`: N rows of a round, P numbers in a row.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from fedloom.base.errors import ConfigError, DataError, TrainingError
from fedloom.base.files import json_sha256
from fedloom.base.plugin import Family
from fedloom.base.rows import RowMatrix, check_row, is_finite
from fedloom.base.tree import Layout, Tree
from fedloom.contracts.local_settings import LocalSettings
from fedloom.contracts.messages import WholeSum

__all__ = ["SHARE", "Accumulator", "Aggregate", "Aggregator", "Frame", "Server", "SumAccumulator"]

SHARE = "share"
"""Name of the score that says which share of the aggregate a row has, for rules that give rows shares."""


@dataclass(frozen=True)
class Server:
    """What a server has besides rows: the model, the run's task, and how its clients train."""

    model: Any
    """A `contracts.model.Model`."""
    task: Any
    """A `contracts.federated.Task`."""
    local: LocalSettings
    lr: float
    """The clients' learning rate of this round."""
    ready: Any = None
    """What the rule made ready once, before the first round (`Aggregator.ready`)."""


@dataclass(frozen=True)
class Frame:
    """What the numbers of a round's rows mean, whose they are, and what the rounds before left."""

    layout: Layout
    """The row's slots with the names of the parameters in each."""
    anchor_P: Tensor
    """The shared parameters at the start of the round, in the order of the slot `delta`."""
    clients: tuple[str, ...] = ()
    """Who sent each row, in the order of the rows; empty before any has come."""
    state: Tree = field(default_factory=dict[str, Tensor])
    """What the aggregator kept at the end of the round before."""
    population: tuple[str, ...] = ()
    """All clients of the training, in their order."""
    seed: int = 0
    round: int = 0
    server: Server | None = None
    """For a rule that `looks`; a round's other rules, and tests of rows alone, have none."""

    @property
    def anchor(self) -> Tree:
        """The shared parameters at the start of the round by name, as views."""
        own = tuple(("", name, shape) for slot, name, shape in self.layout.entries if slot == "delta")
        return Layout(own).tree(self.anchor_P)


@dataclass(frozen=True)
class Aggregate:
    """One row for many, and what an aggregator has to say besides."""

    row_P: Tensor
    measures: Mapping[str, float] = field(default_factory=dict[str, float])
    """What it found out about the rows, by name: numbers for the round's record."""
    state: Tree = field(default_factory=dict[str, Tensor])
    """What it keeps for the next round."""
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])
    """What it found out about single rows, by client and name: a `score` that rises with suspicion or a `trust` that
    falls with it, and its `share` of the aggregate; for the audit log."""
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    """Clients whose rows are no part of it, each with the reason."""


class Accumulator(Protocol):
    """Takes rows one by one and gives their aggregate."""

    def add(self, row_P: Tensor, weight: float, client: str = "") -> None:
        """Take one client's row and its positive weight (weights need not sum to 1).

        The row may be held: it must not change until the result has been taken. Raises DataError if it is unlike the
        first one, TrainingError if it is not finite, here or in `result`.
        """
        ...

    def result(self) -> Aggregate:
        """Return the aggregate of all rows taken; DataError if there are none."""
        ...


@runtime_checkable
class SumAccumulator(Accumulator, Protocol):
    """An accumulator that takes rows as they enter a sum, and sums of rows that nobody has seen."""

    def add_sum(self, packet: Tensor, rows: int) -> None:
        """Take the sum of so many rows as bytes, of one too."""
        ...


class Aggregator(Family):
    """Many rows to one: [N, P] and weights [N] that sum to 1 give [P]."""

    folder = "fedloom.federated.aggregators"
    linear: ClassVar[bool] = False
    """Whether the aggregate is the weighted mean of the rows, so that their sum, and noise on it, passes through."""
    sum_only: ClassVar[bool] = False
    """Whether the server sees the sum of the rows only (secure aggregation), which no lossy codec survives."""
    changes_basis: ClassVar[bool] = False
    """Whether a number of the row may mean something else in the next round, so that nothing may remember it."""
    looks: ClassVar[bool] = False
    """Whether it needs what a server has besides rows (`Frame.server`): the model, or what it made `ready`."""
    outside_theorem: ClassVar[bool] = False
    """Marks a rule as it was published, which runs where its theorem does not hold."""
    anchored: ClassVar[bool] = False
    """Whether lengths or directions of rows count, so that rows moved all alike give another aggregate."""
    one_sided: ClassVar[bool] = False
    """Whether it takes the lower of two middle values, so that rows with all signs turned give another aggregate."""
    noisy: ClassVar[bool] = False
    """Whether it adds noise of its own, so that equal rows are not their aggregate."""
    distrusts_copies: ClassVar[bool] = False
    """Whether it takes rows that are alike for copies by one attacker, so that equal rows are not their aggregate."""

    @abstractmethod
    def __call__(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Tensor:
        """Return the aggregate [P]; DataError or TrainingError for odd rows or weights (`check_matrix`)."""

    def check_layout(self, layout: Layout) -> None:
        """Refuse rows of this layout with ConfigError if they cannot be aggregated; asked before the first step."""

    def least_rows(self) -> int:
        """Return the fewest rows of which what the rule promises holds; a round of fewer is refused."""
        return 1

    def check_count(self, n_rows: int) -> None:
        """Refuse so few rows with ConfigError; asked before the run starts too, where it takes too few clients."""
        if n_rows < self.least_rows():
            raise ConfigError(
                f"aggregator: '{self.name}' with these settings needs {self.least_rows()} rows in a round, found "
                f"{n_rows}: raise clients_per_round, let it bear fewer attackers, or take a rule that holds for fewer."
            )

    def tolerates(self, n_rows: int) -> int:
        """Return how many of so many rows of equal weight may be anything and move the aggregate no farther than a
        bound; 0 claims nothing.
        """
        return 0

    def ready(self, model: Any, task: Any) -> Any:
        """Return what it judges by, read and encoded once for all rounds, for a rule that `looks`.

        Refused is what would stop it, before anything is trained: a file, a model or a task that it cannot ask.
        """
        return None

    def identity(self) -> str:
        """Return what its aggregates depend on besides settings and rows, such as the content of a file."""
        return json_sha256(self.public_texts()) if self.public_texts() else ""

    def public_texts(self) -> Mapping[str, str]:
        """Return public texts, by id, that it judges rows by: none of them may be measured by."""
        return {}

    def summand(self, row_P: Tensor, weight: float) -> Tensor | None:
        """Return a row [P] with its weight as it enters a sum that alone is seen, uint8; None: as its codec makes it.

        Raises TrainingError for a row that is not finite, DataError for a weight that does not fit.
        """
        return None

    def whole_sum(self, numbers: int, *, clients: int, least: int) -> WholeSum | None:
        """Return what noise in a sum of rows of so many numbers is accounted by; None where no such noise can be.

        `clients` are those of a round, `least` the fewest rows of a sum. ConfigError where rows are not bounded.
        """
        return None

    def upload_bytes(self, size: int) -> int:
        """Return what leaves a client in place of a packet, for a row of so many numbers; 0: the packet itself."""
        return 0

    def aggregate(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the aggregate with what was measured and what is kept: for a rule that has either."""
        return Aggregate(self(rows_NP, weight_N, frame))

    def matrix_bytes(self) -> int:
        """Return the size of the largest matrix of rows that is kept in memory; a larger one lies in a file."""
        return 1 << 31

    def accumulator(self, frame: Frame) -> Accumulator:
        """Return a fresh accumulator, which gathers all rows; a mean is a running sum and never holds the matrix."""
        self.check_layout(frame.layout)
        return _Gathering(self, frame)


class _Gathering:
    """Gathers all rows, then hands the matrix to its aggregator."""

    def __init__(self, aggregator: Aggregator, frame: Frame) -> None:
        self._aggregator, self._frame = aggregator, frame
        self._rows: RowMatrix | None = None
        self._first: tuple[torch.dtype, torch.Size] | None = None
        self._weights: list[float] = []
        self._clients: list[str] = []

    def add(self, row_P: Tensor, weight: float, client: str = "") -> None:
        """Copy one row."""
        check_row(row_P, weight, self._first, index=len(self._weights))
        if not is_finite(row_P):
            where = f"row {len(self._weights)} of the round"
            raise TrainingError(f"{where} holds NaN or infinity: allowed are finite numbers.")
        if self._rows is None:
            self._rows = RowMatrix(row_P, limit_bytes=self._aggregator.matrix_bytes())
            self._first = (row_P.dtype, row_P.shape)
        self._rows.append(row_P)
        self._weights.append(weight)
        self._clients.append(client)

    def result(self) -> Aggregate:
        """Return the aggregate."""
        if self._rows is None:
            raise DataError("a round without rows has no aggregate: at least one client must report.")
        rows_NP, weight_N = self._rows.rows_NP, torch.tensor(self._weights, dtype=torch.float64)
        frame = replace(self._frame, clients=tuple(self._clients))
        return self._aggregator.aggregate(rows_NP, (weight_N / weight_N.sum()).to(rows_NP.dtype), frame)
