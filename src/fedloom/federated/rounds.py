"""One federated round as a function: `step(plan, state, carrier)` returns the next state and a record of the round.

    State -> Job(client, Local) -> local training -> rule.finish -> row [P] -> codec -- the wire --> row -> check, clip
          -> aggregator -> noise -> rule.merge -> server_opt.step -> State

A row, its layout, a weight, counts and the training loss are all that crosses the wire; the ledger lists them. `step`
never changes its input, and its outcome depends on the plan, the state and the clients' data alone, so that round r
from a saved state equals round r of an unbroken run bit for bit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import torch
from torch import Tensor

from fedloom.base import rng
from fedloom.base.errors import DataError, TrainingError
from fedloom.base.mean import Mean
from fedloom.base.rows import is_finite
from fedloom.base.tree import Layout, Slots, Tree
from fedloom.contracts.aggregation import SumAccumulator
from fedloom.contracts.federated import Accumulator, Aggregate, Carrier, Frame, Job, Local, Plan, Report, Server
from fedloom.contracts.messages import Traffic
from fedloom.federated.learning_rate import learning_rate

__all__ = [
    "ClientRecord",
    "RoundRecord",
    "State",
    "begin",
    "drawn_clients",
    "ended",
    "exhausted",
    "sample_clients",
    "spent_at_most",
    "step",
    "train",
]


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
    privacy: Tree = field(default_factory=dict[str, Tensor])
    """What the mechanism keeps at the server."""
    history: Slots = field(default_factory=dict[str, Tree])
    """What the aggregator keeps, of the slots that are weighted and of those that are uniform."""
    best: Tree = field(default_factory=dict[str, Tensor])
    """The parameters of the best round so far and what they score, where rounds are chosen from."""
    middle: Slots = field(default_factory=dict[str, Tree])
    """What the server trains itself while clients train, of a split model: parameters and optimiser, not rows."""


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """What the server saw of one client in one round: all that a round keeps of each, so it is kept small."""

    client: str
    weight: float
    n_examples: int
    samples_seen: int
    loss: Mean
    upload_bytes: int
    slots: tuple[str, ...]
    steps: int
    own_seen: int | None = None
    traffic: Mapping[str, Traffic] = field(default_factory=dict[str, Traffic])


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
    absent: tuple[str, ...] = ()
    """Clients that were asked and did not report, or whose report was refused."""
    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of those the refused ones, each with the reason."""
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])
    """What the aggregator found out about single rows, by client and name."""
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    """Clients whose rows the aggregator did not merge, each with the reason."""

    @property
    def loss(self) -> Mean:
        """The training loss per supervised token over all clients of the round."""
        return sum((record.loss for record in self.clients), Mean())

    @property
    def bytes_per_token(self) -> float:
        """Bytes of all messages beside rows, both ways, over the tokens that passed; 0 where there were none."""
        kinds = [(kind, one) for record in self.clients for kind, one in record.traffic.items()]
        tokens = sum(one.n_tokens for _, one in kinds) / max(1, len({kind for kind, _ in kinds}))
        return sum(one.n_bytes for _, one in kinds) / tokens if tokens else 0.0


def begin(plan: Plan, params_P: Tensor) -> State:
    """Return the state before the first round."""
    params = {"": params_P}
    privacy = plan.mechanism.init() if plan.mechanism.covers().at_server else {}
    return State(0, params_P, plan.rule.init_shared(params), plan.server_opt.init(params), {}, privacy=privacy)


def sample_clients(plan: Plan, round: int) -> list[str]:
    """Return the clients of a round in client order: drawn without replacement, or each by itself.

    Each by itself where whole clients are protected, because the accountant assumes it; a round may then be empty.
    """
    if plan.mechanism.covers().at_server:
        rate = plan.budgets[""].rate
        draws_N = plan.mechanism.source("clients", plan.stream, round)(len(plan.clients)).tolist()
        limit = NormalDist().inv_cdf(rate) if rate < 1 else float("inf")
        return [client for client, draw in zip(plan.clients, draws_N, strict=True) if draw < limit]
    return drawn_clients(plan.clients, plan.clients_per_round, plan.seed, round)


def drawn_clients(clients: tuple[str, ...], n_drawn: int, seed: int, round: int) -> list[str]:
    """Return `n_drawn` of the clients, drawn without replacement, in client order."""
    if n_drawn == len(clients):
        return list(clients)
    drawn = set(rng.python_random(seed, "clients", round).sample(clients, n_drawn))
    return [client for client in clients if client in drawn]


def exhausted(plan: Plan, state: State) -> bool:
    """Return whether every privacy budget is spent, so that no round may follow."""
    return not any(_remaining(plan, state, client) > 0 for client in plan.clients)


def _remaining(plan: Plan, state: State, client: str) -> int:
    """Return how often the mechanism may still be used on a client's data; 1 where there is no limit."""
    name = plan.budget_of(client)
    budget = plan.budgets.get(name)
    return budget.max_uses - state.spent.get(name, 0) if budget else 1


def train(
    plan: Plan, state: State, carrier: Carrier, server: Server | None = None
) -> Iterator[tuple[State, RoundRecord]]:
    """Yield the state and the record of each round that is left, until the last one or the end of every budget."""
    while not ended(plan, state):
        state, record = step(plan, state, carrier, server=server)
        yield state, record


def ended(plan: Plan, state: State) -> bool:
    """Return whether no round is left: all are done, or every privacy budget is spent."""
    return state.round >= plan.rounds or exhausted(plan, state)


def step(
    plan: Plan,
    state: State,
    carrier: Carrier,
    *,
    closed: Callable[[Sequence[str]], None] = lambda _: None,
    server: Server | None = None,
) -> tuple[State, RoundRecord]:
    """Return the state after one more round, and the round's record; clients without budget are not asked.

    Some of the clients asked may be missing among the reports, as far as `plan.min_clients` allows: they count as not
    sampled, but what they may have spent of their privacy is spent. `closed` is told who came before rows are merged:
    a round that is made again has to be made with the same clients. `server` is for an aggregator that looks at the
    model; its learning rate is the round's. Raises TrainingError where too few came.
    """
    sampled = [client for client in sample_clients(plan, state.round) if _remaining(plan, state, client) > 0]
    lr = learning_rate(plan.local, round=state.round, rounds=plan.rounds)
    intake = _Intake(plan, state, replace(server, lr=lr) if server else None)
    memory: dict[str, Slots] = dict(state.memory)
    records: list[ClientRecord] = []
    refused: dict[str, str] = {}
    middle = state.middle
    for report in carrier(_jobs(plan, state, sampled, lr)):
        if report.refused:
            refused[report.client] = report.refused
            continue
        intake.add(report)
        middle = report.middle or middle
        if report.sum_of:
            continue
        n_bytes = plan.aggregator.upload_bytes(report.layout.size) or report.packet.numel()
        records.append(_record(report, n_bytes, intake.slots))
        if report.memory:
            memory[report.client] = report.memory
        del report  # a large row is not held while the next one comes
    absent = _absent(plan, state.round, sampled, [record.client for record in records])
    closed([record.client for record in records])
    steps = plan.mechanism.covers().per_example
    uses = _most(plan, state, absent) | {record.client: record.steps if steps else 1 for record in records}
    spent = _after(plan, state, uses)
    params, shared, opt, delta_norm, taken = {"": state.params_P}, state.shared, state.opt, 0.0, _Taken(state)
    # Nobody came: nothing changes, unless even that must not show.
    if records or plan.mechanism.covers().at_server:
        taken = intake.taken()
        delta, shared = plan.rule.merge(state.shared, taken.mean, fraction=len(records) / len(plan.clients))
        params, opt = plan.server_opt.step(params, delta, state.opt, round=state.round)
        delta_norm = float(delta[""].norm())
    held = memory, spent, taken.privacy, taken.history, state.best, middle
    done = State(state.round + 1, params[""], shared, opt, *held)
    download_bytes = state.params_P.nbytes + sum(tree[""].nbytes for tree in state.shared.values())
    gain = plan.server_opt.gain(opt)
    head = state.round, lr, gain, delta_norm, download_bytes, tuple(records)
    return done, RoundRecord(*head, taken.measures, tuple(absent), refused, taken.scores, taken.left_out)


def _absent(plan: Plan, round: int, sampled: Sequence[str], came: Sequence[str]) -> list[str]:
    """Return who did not report; refuse too few reports, and any that was not asked for or is out of order."""
    present = set(came)
    absent = [client for client in sampled if client not in present]
    if [client for client in sampled if client in present] != list(came):
        raise TrainingError(f"round {round}: {len(came)} reports for {len(sampled)} jobs, or out of order.")
    least = min(plan.min_clients or len(sampled), len(sampled))
    if len(came) < least:
        raise TrainingError(
            f"round {round}: {len(came)} of {len(sampled)} clients reported, at least {least} have to (min_clients); "
            f"missing: {', '.join(absent)}."
        )
    return absent


def _jobs(plan: Plan, state: State, sampled: list[str], lr: float) -> Iterator[Job]:
    params = {"": state.params_P}
    for client in sampled:
        memory = state.memory.get(client) or plan.rule.init_memory(params)
        local = Local(params, state.shared, memory)
        yield Job(client, state.round, lr, local, state.spent.get(client, 0), state.middle)


def spent_at_most(plan: Plan, state: State) -> dict[str, int]:
    """Return the uses of the mechanism after the coming round, if every client that it samples takes all its steps."""
    return _after(plan, state, _most(plan, state, sample_clients(plan, state.round)))


def _most(plan: Plan, state: State, clients: Sequence[str]) -> dict[str, int]:
    """Return the uses of the mechanism that these clients may make of their data in a round."""
    most = plan.local.steps if plan.mechanism.covers().per_example else 1
    return {client: min(most, _remaining(plan, state, client)) for client in clients}


def _after(plan: Plan, state: State, uses: Mapping[str, int]) -> dict[str, int]:
    """Return the uses of the mechanism after a round: steps of a client, a row of a client, or the round itself."""
    spent, unit = dict(state.spent), plan.mechanism.covers()
    if unit.at_server:
        return spent | {"": spent.get("", 0) + 1}
    for client, n in uses.items() if unit.private else ():
        spent[client] = spent.get(client, 0) + n
    return spent


def _record(report: Report, n_bytes: int, slots: tuple[str, ...]) -> ClientRecord:
    return ClientRecord(
        report.client,
        report.weight,
        report.n_examples,
        report.samples_seen,
        report.loss,
        n_bytes,
        slots,
        report.steps,
        report.own_seen,
        report.traffic,
    )


class _Taken:
    """What a round's rows come to: their mean, and what mechanism and aggregator keep of them."""

    def __init__(self, state: State) -> None:
        self.mean: Slots = {}
        self.privacy = state.privacy
        self.history = state.history
        self.measures: Mapping[str, float] = {}
        self.scores: Mapping[str, Mapping[str, float]] = {}
        self.left_out: Mapping[str, str] = {}


class _Intake:
    """Takes in a round's rows, one by one, and gives their aggregate.

    Slots that a rule wants uniform are aggregated apart, with equal weights.
    """

    def __init__(self, plan: Plan, state: State, server: Server | None) -> None:
        self._plan, self._state, self._server = plan, state, server
        self._unit = plan.mechanism.covers()
        budget = plan.budgets.get("")
        expected = budget.rate * len(plan.clients) if budget else 0.0
        self._side = plan.mechanism.server_side(budget, (plan.stream, state.round), state.privacy, expected)
        self.slots: tuple[str, ...] = ()
        """Names of what a row holds, once the first one has told them."""
        self._layout: Layout | None = None
        self._parts: dict[str, tuple[Tensor | slice, Accumulator]] = {}
        """What is aggregated together, by name: which numbers of a row, and what takes them."""

    def add(self, report: Report) -> None:
        where = f"round {self._state.round}, client '{report.client}'"
        if self._layout is None:
            self._open(report.layout)
        if report.layout != self._layout:
            raise DataError(f"{where}: its row has another layout than the first row of the round.")
        if report.sum_of:
            self._take_sum(report.packet, report.sum_of)
            return
        if not report.layout.size:  # everything is private
            return
        if report.weight <= 0 or (not self._unit.private and report.n_examples < 1):
            raise DataError(f"{where}: reports {report.n_examples} examples and weight {report.weight:g}.")
        if self._plan.aggregator.upload_bytes(report.layout.size):
            if report.packet.numel():  # else it is in the sum that comes
                self._take_sum(report.packet, 1)
            return
        row_P = self._plan.codec.decode(report.packet, report.layout.size)
        if not is_finite(row_P):
            raise TrainingError(f"{where}: its row holds NaN or infinity; lower local.lr.")
        row_P = self._side.take(row_P)
        for name, (columns_P, accumulator) in self._parts.items():
            # Under protection a weight is nobody's to choose: one above 1 would lift a row over its clip.
            weight = 1.0 if self._unit.private or name == "uniform" else report.weight
            accumulator.add(row_P[columns_P], weight, report.client)

    def _take_sum(self, packet: Tensor, rows: int) -> None:
        """Take in the sum of so many rows, or one as it enters such a sum."""
        for _, accumulator in self._parts.values():
            if not isinstance(accumulator, SumAccumulator):
                raise DataError(f"aggregator '{self._plan.aggregator.name}' takes rows and no sums.")
            accumulator.add_sum(packet, rows)

    def _open(self, layout: Layout) -> None:
        """Start the accumulators once the first row has told what rows hold."""
        # Of rows that are seen as a sum alone nothing can be taken apart: there all slots count alike.
        apart = frozenset[str]() if self._plan.aggregator.sum_only else self._plan.rule.uniform_slots
        self._layout = layout
        self.slots = tuple(dict.fromkeys(slot for slot, _, _ in layout.entries))
        uniform_P = layout.columns(apart) if apart else None
        whole = {"weighted": slice(None)}
        columns = whole if uniform_P is None else {"weighted": ~uniform_P, "uniform": uniform_P}
        for name, columns_P in columns.items():
            frame = Frame(
                layout.only(apart, inside=name == "uniform").named_after(self._plan.layout),
                self._state.params_P,
                state=self._state.history.get(name, {}),
                population=self._plan.clients,
                seed=self._plan.seed,
                round=self._state.round,
                server=self._server,
            )
            self._parts[name] = (columns_P, self._plan.aggregator.accumulator(frame))

    def taken(self) -> _Taken:
        """Return what the rows come to."""
        layout = self._layout or Layout.of({"delta": {"": self._state.params_P}})
        taken = _Taken(self._state)
        if not layout.size:
            taken.mean = layout.slots(torch.zeros(0))
            return taken
        done = {name: accumulator.result() for name, (_, accumulator) in self._parts.items()}
        row_P = self._side.release(self._whole(done, layout.size) if done else None, layout.size)
        self._parts = {}  # sums of large rows go before the server's step
        if row_P is None:
            raise DataError("a round without clients has no aggregate.")
        taken.mean, taken.privacy = layout.slots(row_P), self._side.state
        taken.history = {name: one.state for name, one in done.items() if one.state}
        # What a mechanism at the server does not cover, it cannot let out.
        if done and not self._unit.at_server:
            told = done["weighted"]
            taken.measures, taken.scores, taken.left_out = told.measures, told.scores, told.left_out
        return taken

    def _whole(self, done: Mapping[str, Aggregate], size: int) -> Tensor:
        row_P = done["weighted"].row_P
        if len(done) == 1:
            return row_P
        whole_P = row_P.new_empty(size)
        for name, (columns_P, _) in self._parts.items():
            whole_P[columns_P] = done[name].row_P
        return whole_P
