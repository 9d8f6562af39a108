"""One federated round as a function: `step(plan, state, carrier)` returns the next state and a record of the round.

    State -> Job(client, Local) -> local training -> rule.finish -> row [P] -- the wire --> rows -> check
          -> aggregator -> rule.merge -> server_opt.step -> State

A row, its layout, a weight and the training loss are all that crosses the wire; the ledger lists them. `step` never
changes its input, and its outcome depends on the plan, the state and the clients' data alone, so that round r from a
saved state equals round r of an unbroken run bit for bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedloom import rng
from fedloom.contracts import Aggregator, Carrier, Job, Local, Report, Rule, ServerOpt
from fedloom.errors import DataError, TrainingError
from fedloom.local import learning_rate
from fedloom.mean import Mean
from fedloom.settings import LocalSettings
from fedloom.tree import Layout, Slots

__all__ = ["ClientRecord", "Plan", "RoundRecord", "State", "begin", "sample_clients", "step"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a federated training does in every round."""

    rule: Rule
    server_opt: ServerOpt
    aggregator: Aggregator
    local: LocalSettings
    clients: tuple[str, ...]
    clients_per_round: int
    rounds: int
    seed: int


@dataclass(frozen=True)
class State:
    """All that is kept between rounds. Trees are whole rows under the name ""; `Layout` gives the names back."""

    round: int
    params_P: Tensor
    shared: Slots
    opt: Slots
    memory: Mapping[str, Slots]
    """Clients' own slots by client; in a deployment they lie at the clients."""


@dataclass(frozen=True)
class ClientRecord:
    """What the server saw of one client in one round."""

    client: str
    weight: float
    n_examples: int
    samples_seen: int
    loss: Mean
    upload_bytes: int
    slots: tuple[str, ...]


@dataclass(frozen=True)
class RoundRecord:
    """What happened in one round."""

    round: int
    lr: float
    gain: float
    delta_norm: float
    download_bytes: int
    clients: tuple[ClientRecord, ...]

    @property
    def loss(self) -> Mean:
        """The training loss per supervised token over all clients of the round."""
        return sum((record.loss for record in self.clients), Mean())


def begin(plan: Plan, params_P: Tensor) -> State:
    """Return the state before the first round."""
    params = {"": params_P}
    return State(0, params_P, plan.rule.init_shared(params), plan.server_opt.init(params), {})


def sample_clients(plan: Plan, round: int) -> list[str]:
    """Return the clients of a round: drawn without replacement, in client order."""
    random = rng.python_random(plan.seed, "clients", round)
    drawn = set(random.sample(plan.clients, plan.clients_per_round))
    return [client for client in plan.clients if client in drawn]


def step(plan: Plan, state: State, carrier: Carrier) -> tuple[State, RoundRecord]:
    """Return the state after one more round, and the round's record."""
    sampled = sample_clients(plan, state.round)
    lr = learning_rate(plan.local, round=state.round, rounds=plan.rounds)
    merged = _Merging(plan.aggregator, plan.rule.uniform_slots)
    memory: dict[str, Slots] = dict(state.memory)
    records: list[ClientRecord] = []
    for report in carrier(_jobs(plan, state, sampled, lr)):
        merged.add(report, state.round)
        records.append(_record(report))
        if report.memory:
            memory[report.client] = report.memory
    if [record.client for record in records] != sampled:
        raise TrainingError(f"round {state.round}: {len(records)} reports for {len(sampled)} jobs, or out of order.")
    fraction = len(sampled) / len(plan.clients)
    delta, shared = plan.rule.merge(state.shared, merged.result(), fraction=fraction)
    params, opt = plan.server_opt.step({"": state.params_P}, delta, state.opt, round=state.round)
    done = State(state.round + 1, params[""], shared, opt, memory)
    download_bytes = state.params_P.nbytes + sum(tree[""].nbytes for tree in state.shared.values())
    gain = plan.server_opt.gain(opt)
    return done, RoundRecord(state.round, lr, gain, float(delta[""].norm()), download_bytes, tuple(records))


def _jobs(plan: Plan, state: State, sampled: list[str], lr: float) -> Iterator[Job]:
    params = {"": state.params_P}
    for client in sampled:
        memory = state.memory.get(client) or plan.rule.init_memory(params)
        yield Job(client, state.round, lr, Local(params, state.shared, memory))


def _record(report: Report) -> ClientRecord:
    slots = tuple(dict.fromkeys(slot for slot, _, _ in report.layout.entries))
    return ClientRecord(
        report.client,
        report.weight,
        report.n_examples,
        report.samples_seen,
        report.loss,
        report.row_P.nbytes,
        slots,
    )


class _Merging:
    """The aggregate of a round's rows; slots that a rule wants uniform are aggregated apart, with equal weights."""

    def __init__(self, aggregator: Aggregator, uniform_slots: frozenset[str]) -> None:
        self._weighted, self._uniform = aggregator.accumulator(), aggregator.accumulator()
        self._uniform_slots = uniform_slots
        self._layout: Layout | None = None

    def add(self, report: Report, round: int) -> None:
        where = f"round {round}, client '{report.client}'"
        if self._layout is None:
            self._layout = report.layout
        if report.layout != self._layout:
            raise DataError(f"{where}: its row has another layout than the first row of the round.")
        if not bool(torch.isfinite(report.row_P).all()):
            raise TrainingError(f"{where}: its row holds NaN or infinity; lower local.lr.")
        if report.n_examples < 1 or report.weight <= 0:
            raise DataError(f"{where}: reports {report.n_examples} examples and weight {report.weight:g}.")
        uniform_P = self._layout.columns(self._uniform_slots)
        self._weighted.add(report.row_P if not self._uniform_slots else report.row_P[~uniform_P], report.weight)
        if self._uniform_slots:
            self._uniform.add(report.row_P[uniform_P], 1.0)

    def result(self) -> Slots:
        if self._layout is None:
            raise DataError("a round without clients has no aggregate.")
        row_P = self._weighted.result()
        if self._uniform_slots:
            uniform_P = self._layout.columns(self._uniform_slots)
            whole_P = row_P.new_empty(self._layout.size)
            whole_P[~uniform_P], whole_P[uniform_P] = row_P, self._uniform.result()
            row_P = whole_P
        return self._layout.slots(row_P)
