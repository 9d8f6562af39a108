"""One federated round as a function: `step(plan, state, carrier)` returns the next state and a record of the round.

    State -> Job(client, Local) -> local training -> rule.finish -> row [P] -> codec -- the wire --> row -> check, clip
          -> aggregator -> noise -> rule.merge -> server_opt.step -> State

A row, its layout, a weight, counts and the training loss are all that crosses the wire; the ledger lists them. `step`
never changes its input, and its outcome depends on the plan, the state and the clients' data alone, so that round r
from a saved state equals round r of an unbroken run bit for bit.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

import torch
from torch import Tensor

from fedloom.base import rng
from fedloom.base.errors import DataError, TrainingError
from fedloom.base.mean import Mean
from fedloom.base.tree import Layout, Slots, Tree
from fedloom.contracts.federated import (
    Aggregator,
    Carrier,
    Codec,
    Frame,
    Guard,
    Job,
    Local,
    Mechanism,
    Report,
    Rule,
    ServerOpt,
)
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.client import learning_rate

__all__ = [
    "ClientRecord",
    "Plan",
    "RoundRecord",
    "State",
    "begin",
    "drawn_clients",
    "exhausted",
    "sample_clients",
    "spent_at_most",
    "step",
]


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
    mechanism: Mechanism
    guards: Mapping[str, Guard]
    """What protects each client's data; where whole clients are protected, the guard of all stands under ""."""
    codec: Codec
    layout: Layout
    """Names and shapes of the shared parameters, in the order of a row."""
    stream: str | int
    """What names the draws of the mechanism."""

    @property
    def protects(self) -> str:
        """Whose contributions the mechanism protects."""
        return self.mechanism.protects()


@dataclass(frozen=True)
class State:
    """All that is kept between rounds. Trees are whole rows under the name ""; `Layout` gives the names back."""

    round: int
    params_P: Tensor
    shared: Slots
    opt: Slots
    memory: Mapping[str, Slots]
    """Clients' own slots by client; in a deployment they lie at the clients."""
    spent: Mapping[str, int] = field(default_factory=dict[str, int])
    """Uses of the mechanism on each client's data, or under "" on all clients'."""
    kept: Tree = field(default_factory=dict[str, Tensor])
    """What the mechanism keeps at the server."""


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
    steps: int


@dataclass(frozen=True)
class RoundRecord:
    """What happened in one round."""

    round: int
    lr: float
    gain: float
    delta_norm: float
    download_bytes: int
    clients: tuple[ClientRecord, ...]
    measures: Mapping[str, float] = field(default_factory=dict[str, float])
    """What the aggregator found out about the rows, by name."""

    @property
    def loss(self) -> Mean:
        """The training loss per supervised token over all clients of the round."""
        return sum((record.loss for record in self.clients), Mean())


def begin(plan: Plan, params_P: Tensor) -> State:
    """Return the state before the first round."""
    params = {"": params_P}
    kept = plan.mechanism.start() if plan.protects == "client" else {}
    return State(0, params_P, plan.rule.init_shared(params), plan.server_opt.init(params), {}, kept=kept)


def sample_clients(plan: Plan, round: int) -> list[str]:
    """Return the clients of a round in client order: drawn without replacement, or each by itself.

    Each by itself where whole clients are protected, because the accountant assumes it; a round may then be empty.
    """
    if plan.protects == "client":
        rate = plan.guards[""].rate
        draws_N = plan.mechanism.source("clients", plan.stream, round)(len(plan.clients)).tolist()
        limit = NormalDist().inv_cdf(rate) if rate < 1 else float("inf")
        return [client for client, draw in zip(plan.clients, draws_N, strict=True) if draw < limit]
    return drawn_clients(plan.clients, plan.clients_per_round, plan.seed, round)


def drawn_clients(clients: tuple[str, ...], n_drawn: int, seed: int, round: int) -> list[str]:
    """Return `n_drawn` of the clients, drawn without replacement, in client order."""
    drawn = set(rng.python_random(seed, "clients", round).sample(clients, n_drawn))
    return [client for client in clients if client in drawn]


def exhausted(plan: Plan, state: State) -> bool:
    """Return whether every privacy budget is spent, so that no round may follow."""
    return not any(_remaining(plan, state, client) > 0 for client in plan.clients)


def _remaining(plan: Plan, state: State, client: str) -> int:
    """Return how often the mechanism may still be used on a client's data; 1 where there is no limit."""
    name = "" if plan.protects == "client" else client
    guard = plan.guards.get(name)
    return guard.allowed - state.spent.get(name, 0) if guard else 1


def step(plan: Plan, state: State, carrier: Carrier) -> tuple[State, RoundRecord]:
    """Return the state after one more round, and the round's record; clients without budget are not asked."""
    sampled = [client for client in sample_clients(plan, state.round) if _remaining(plan, state, client) > 0]
    lr = learning_rate(plan.local, round=state.round, rounds=plan.rounds)
    merging = _Merging(plan, state)
    memory: dict[str, Slots] = dict(state.memory)
    records: list[ClientRecord] = []
    for report in carrier(_jobs(plan, state, sampled, lr)):
        merging.add(report)
        records.append(_record(report))
        if report.memory:
            memory[report.client] = report.memory
    if [record.client for record in records] != sampled:
        raise TrainingError(f"round {state.round}: {len(records)} reports for {len(sampled)} jobs, or out of order.")
    spent = _spent(plan, state, records)
    params, shared, opt, delta_norm, kept = {"": state.params_P}, state.shared, state.opt, 0.0, state.kept
    # Nobody came: nothing changes, unless even that must not show.
    if sampled or plan.protects == "client":
        mean, kept = merging.result()
        delta, shared = plan.rule.merge(state.shared, mean, fraction=len(sampled) / len(plan.clients))
        params, opt = plan.server_opt.step(params, delta, state.opt, round=state.round)
        delta_norm = float(delta[""].norm())
    done = State(state.round + 1, params[""], shared, opt, memory, spent, kept)
    download_bytes = state.params_P.nbytes + sum(tree[""].nbytes for tree in state.shared.values())
    gain = plan.server_opt.gain(opt)
    return done, RoundRecord(state.round, lr, gain, delta_norm, download_bytes, tuple(records), merging.measures())


def _jobs(plan: Plan, state: State, sampled: list[str], lr: float) -> Iterator[Job]:
    params = {"": state.params_P}
    for client in sampled:
        memory = state.memory.get(client) or plan.rule.init_memory(params)
        yield Job(client, state.round, lr, Local(params, state.shared, memory), state.spent.get(client, 0))


def spent_at_most(plan: Plan, state: State) -> dict[str, int]:
    """Return the uses of the mechanism after the coming round, if every client that it samples takes all its steps."""
    spent = dict(state.spent)
    if plan.protects == "client":
        return spent | {"": spent.get("", 0) + 1}
    for client in sample_clients(plan, state.round):
        steps = min(plan.local.steps, _remaining(plan, state, client))
        spent[client] = spent.get(client, 0) + (steps if plan.protects == "example" else min(1, steps))
    return spent


def _spent(plan: Plan, state: State, records: list[ClientRecord]) -> dict[str, int]:
    """Return the uses of the mechanism after the round: a step of a client, a row of a client, or the round itself."""
    spent = dict(state.spent)
    if plan.protects == "client":
        spent[""] = spent.get("", 0) + 1
    elif plan.guards:
        for record in records:
            uses = record.steps if plan.protects == "example" else 1
            spent[record.client] = spent.get(record.client, 0) + uses
    return spent


def _record(report: Report) -> ClientRecord:
    slots = tuple(dict.fromkeys(slot for slot, _, _ in report.layout.entries))
    return ClientRecord(
        report.client,
        report.weight,
        report.n_examples,
        report.samples_seen,
        report.loss,
        report.packet.numel(),
        slots,
        report.steps,
    )


class _Merging:
    """The aggregate of a round's rows; slots that a rule wants uniform are aggregated apart, with equal weights."""

    def __init__(self, plan: Plan, state: State) -> None:
        self._plan, self._state = plan, state
        self._layout: Layout | None = None
        self._count, self._inside = 0, 0

    def add(self, report: Report) -> None:
        where = f"round {self._state.round}, client '{report.client}'"
        if self._layout is None:
            self._open(report.layout)
        if report.layout != self._layout:
            raise DataError(f"{where}: its row has another layout than the first row of the round.")
        if not report.layout.size:  # everything is private
            return
        row_P = self._plan.codec.decode(report.packet, report.layout.size)
        # The sum is infinite or NaN wherever a number is, and takes a fraction of the time; it may also overflow.
        if not math.isfinite(float(row_P.sum())) and not bool(torch.isfinite(row_P).all()):
            raise TrainingError(f"{where}: its row holds NaN or infinity; lower local.lr.")
        if report.weight <= 0 or (self._plan.protects == "nothing" and report.n_examples < 1):
            raise DataError(f"{where}: reports {report.n_examples} examples and weight {report.weight:g}.")
        row_P = self._clipped(row_P)
        # Under protection a weight is nobody's to choose: one above 1 would lift a row over its clip.
        weight = report.weight if self._plan.protects == "nothing" else 1.0
        uniform_P = self._uniform_P
        self._weighted.add(row_P if uniform_P is None else row_P[~uniform_P], weight)
        if uniform_P is not None:
            self._uniform.add(row_P[uniform_P], 1.0)

    def _open(self, layout: Layout) -> None:
        """Start the accumulators once the first row has told what rows hold."""
        apart = self._plan.rule.uniform_slots
        self._layout = layout
        self._uniform_P = layout.columns(apart) if apart else None
        self._weighted, self._uniform = (
            self._plan.aggregator.accumulator(
                Frame(layout.only(apart, inside=inside).named_after(self._plan.layout), self._state.params_P)
            )
            for inside in (False, True)
        )

    def _clipped(self, row_P: Tensor) -> Tensor:
        """Return the row, clipped where whole clients are protected: here, so that no client can evade it."""
        if self._plan.protects != "client":
            return row_P
        scale = self._plan.mechanism.scales(row_P.norm().view(1, 1), self._state.kept).view(())
        self._count += 1
        self._inside += int(scale >= 1)
        return row_P * scale

    def result(self) -> tuple[Slots, Tree]:
        """Return the mean upload, and what the mechanism keeps."""
        if self._plan.protects == "client":
            return self._released()
        if self._layout is None:
            raise DataError("a round without clients has no aggregate.")
        if not self._layout.size:
            return self._layout.slots(torch.zeros(0)), self._state.kept
        row_P = self._weighted.result()
        if self._uniform_P is not None:
            whole_P = row_P.new_empty(self._layout.size)
            whole_P[~self._uniform_P], whole_P[self._uniform_P] = row_P, self._uniform.result()
            row_P = whole_P
        return self._layout.slots(row_P), self._state.kept

    def measures(self) -> dict[str, float]:
        """Return what the aggregator found out; nothing where a mechanism does not cover it."""
        if self._plan.protects == "client" or not self._layout or not self._layout.size:
            return {}
        return self._weighted.measures()

    def _released(self) -> tuple[Slots, Tree]:
        """Return the noisy sum of the clipped rows over the expected number of clients, whoever came."""
        plan, state = self._plan, self._state
        layout = self._layout or Layout.of({"delta": {"": state.params_P}})
        sum_P = self._weighted.result() * self._count if self._count else torch.zeros(layout.size)
        guard = plan.guards[""]
        mean_P, kept = plan.mechanism.release(
            sum_P,
            inside=self._inside,
            total=self._count,
            expected=guard.rate * len(plan.clients),
            guard=guard,
            kept=state.kept,
            noise=plan.mechanism.source("noise", plan.stream, state.round),
        )
        return layout.slots(mean_P), kept
