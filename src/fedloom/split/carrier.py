"""Split training in one place: all clients of a round with the server between their parts, message by message.

A step of all clients that train:

    each client   FWD    states behind its input part           the server   BODY   the middle, all clients in one batch
    each client   GRAD   loss, gradient at the states           the server   BACK   gradient, of all clients together
    the server steps its adapters once; each client steps its own parts, with what its rule and optimiser make of it

What a client does besides its gradient is what it does in every federation, and its own parts leave it as one row at
the end of the round: for the same rules, aggregators and codecs as everywhere. The messages pass here as they would
between machines: encoded, counted, decoded.

Deviations: the public code takes one client's step after another (its client-batching too, outside the server). A loss
that is not finite ends the run, as everywhere; between machines it would cost its client the step (`Body.backward`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from fedloom.base.errors import ConfigError, TrainingError
from fedloom.base.tree import Slots, Tree
from fedloom.contracts.federated import Carrier, Engine, Job, Model, Report, Task, Work
from fedloom.contracts.language import LanguageModel, language_model
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.client import train_clients
from fedloom.federated.slopes import Step
from fedloom.federated.workspace import Workspace
from fedloom.split.body import Adapters, Body, Middle, Seeds
from fedloom.split.buckets import rounded
from fedloom.split.cut import Cut
from fedloom.split.defences import Defences, Shield
from fedloom.split.ends import Ends, Said, Turn
from fedloom.split.lockstep import Missed
from fedloom.split.messages import Message, Tally
from fedloom.split.wire import WIRES, WireName

__all__ = [
    "Answers",
    "Here",
    "InOnePlace",
    "Server",
    "Session",
    "SplitSettings",
    "splittable",
    "with_kept",
    "with_middle",
]


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How a model is split, and how its parts speak with one another."""

    cuts: tuple[Cut, ...] = (Cut(1, 1),)
    """Dealt to the clients in turn."""
    private: bool = False
    """Whether each client has adapters of its own at the server."""
    replicas: int = 1
    """Copies of the server's part, to which clients are dealt in turn."""
    replicas_every: int = 0
    """Steps between their averages; 0: when a round ends."""
    wire: WireName = "bfloat16"
    recompute: bool = False
    """Whether the server keeps only what came of a forward pass, and makes it again."""
    tokens: int = 0
    """Tokens that pass the server's blocks at once, padding counted; 0: those of all clients."""
    in_flight: int = 1
    """Micro-batches of a step that are under way between machines at a time."""
    window_s: float = 0.0
    """Seconds after which the server computes a batch of what has come; 0: it waits for all."""
    lr: float = 0.0
    """The server's rate in the first round; 0: the clients'. It falls as theirs does."""
    defences: Defences = field(default_factory=Defences)
    """What clients do to what leaves them."""

    def one_cut(self) -> Cut:
        """Return the cut of all clients; ConfigError where they have several, which takes a server that sees all."""
        if len(set(self.cuts)) > 1:
            raise ConfigError(
                f"protocol.cuts: found {', '.join(map(str, self.cuts))} between machines, where a block that some "
                "clients keep would go to the server of the others in every step; set one cut for all."
            )
        return self.cuts[0]

    def body(self, middle: Middle, cuts: Mapping[str, Cut], local: LocalSettings, clients: Sequence[str]) -> Body:
        """Return the server of a round."""
        adapters, wire = self.adapters(clients), WIRES[self.wire]
        return Body(middle, cuts, wire, local, adapters, recompute=self.recompute, tokens=self.tokens)

    def message_bytes(self, width: int, texts: int, longest: int) -> int:
        """Return the most bytes of a message of so many texts, the longest of so many tokens."""
        return texts * rounded(longest, self.defences.bucket) * WIRES[self.wire].bytes_of(width)

    def rate(self, lr: float) -> float:
        """Return the server's rate over the clients', whose first one is given."""
        return self.lr / lr if self.lr else 1.0

    def adapters(self, clients: Sequence[str]) -> Adapters:
        """Return which adapter of the server each client meets."""
        if self.private:
            return Adapters({client: client for client in clients})
        if self.replicas == 1:
            return Adapters(dict.fromkeys(clients, ""))
        dealt = {client: f"replica {at % self.replicas}" for at, client in enumerate(clients)}
        return Adapters(dealt, replicas=True, every=self.replicas_every)


Answers = Callable[[], tuple[Sequence[Message], Tree]]
"""Gives the answers to a micro-batch's messages once they are there, and what was lent to the server of gradients."""


class Server(Protocol):
    """What the clients' side of a step asks of the server: one in this process, or on another machine."""

    def forward(self, arrived: Sequence[Message], seeds: Seeds, lent: Tree, micro: int) -> Answers:
        """Promise BODY for each FWD."""
        ...

    def backward(self, arrived: Sequence[Message], seeds: Seeds, micro: int) -> Answers:
        """Promise BACK for each GRAD, and the gradients of what was lent."""
        ...

    def step(self, lr: float) -> object:
        """Move the server's adapters."""
        ...


@dataclass
class Session:
    """The server and the clients' ends in one round."""

    model: LanguageModel
    task: Task
    server: Server
    ends: Mapping[Cut, Ends]
    cuts: Mapping[str, Cut]
    settings: SplitSettings
    seed: tuple[str | int, ...]
    """What names the draws of the run."""
    rate: float = 1.0
    """The server's rate over the clients'."""
    shield: Shield = field(default_factory=Shield)
    tally: Tally = field(default_factory=Tally)
    joins_at: int = 0
    """The step before which none is taken: they were made without this client."""

    def slope(self, step: Step) -> tuple[Tensor, Tensor] | None:
        """Return the gradient of each client's own parameters [K, P], and totals and weights of its loss [2, K].

        The server has then taken its step; None where it was made without the client.
        """
        if step.number < self.joins_at:
            return None
        n_micro, at_once = len(step.parts[0]), self.settings.in_flight
        grad_KP, loss_2K = torch.zeros(0), torch.zeros(0)
        try:
            for start in range(0, n_micro, at_once):
                for one_KP, one_2K in self._micros(step, range(start, min(start + at_once, n_micro))):
                    grad_KP = grad_KP + one_KP if len(grad_KP) else one_KP
                    loss_2K = loss_2K + one_2K if len(loss_2K) else one_2K
        except Missed as error:
            self.joins_at = error.step
            return None
        self.server.step(step.lr * self.rate)
        return grad_KP.div_(loss_2K[1][:, None]), loss_2K

    def _micros(self, step: Step, micros: range) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the summed gradients [K, P] of micro-batches under way together, and their losses [2, K]."""
        under_way = [_UnderWay(self, step, micro) for micro in micros]
        for one in under_way:
            one.ahead()
        for one in under_way:
            one.loss()
        for one in under_way:
            yield one.back()

    def turn(self, step: Step, micro: int, places: Sequence[int], seeds: Mapping[str, tuple[str | int, ...]]) -> Turn:
        """Return a micro-batch of the clients at some places, who have one cut."""
        clients = tuple(step.clients[k] for k in places)
        everybody = len(places) == len(step.clients)
        leaves = step.leaves if everybody else {name: leaf[list(places)] for name, leaf in step.leaves.items()}
        parts = [step.parts[k][micro] for k in places]
        said = Said(clients, step.number, micro, WIRES[self.settings.wire])
        scaling_K = step.scaling_K if step.scaling_K is None else step.scaling_K[list(places)]
        ends = self.ends[self.cuts[clients[0]]]
        return Turn(ends, self.task, leaves, parts, said, [seeds[client] for client in clients], scaling_K, self.shield)

    @property
    def lent(self) -> frozenset[str]:
        """The parameters of blocks that some clients keep and others leave to the server."""
        if len(self.ends) == 1:
            return frozenset()
        every = [frozenset(ends.names) for ends in self.ends.values()]
        return frozenset[str]().union(*every) - frozenset.intersection(*every)

    def by_cut(self, clients: Sequence[str]) -> list[list[int]]:
        """Return the places of the clients of each cut."""
        return [
            places for cut in self.ends if (places := [k for k, one in enumerate(clients) if self.cuts[one] == cut])
        ]


class _UnderWay:
    """One micro-batch of all clients that train together, from states to gradients."""

    def __init__(self, session: Session, step: Step, micro: int) -> None:
        self._session, self._step, self._micro = session, step, micro
        self._seeds = {
            client: (*session.seed, step.round, client, step.number, micro, "dropout") for client in step.clients
        }
        self._turns = [
            (places, session.turn(step, micro, places, self._seeds)) for places in session.by_cut(step.clients)
        ]
        self._told: Answers = lambda: ((), {})

    def ahead(self) -> None:
        """Send FWD of each client."""
        lent = {name: leaf for name, leaf in self._step.leaves.items() if name in self._session.lent}
        lent = _scaled(lent, self._step.scaling_K)
        sent = _in_order([(places, turn.ahead()) for places, turn in self._turns])
        self._told = self._session.server.forward(self._sent(sent), self._seeds, lent, self._micro)

    def loss(self) -> None:
        """Send GRAD of each client once BODY is there."""
        body = self._sent(self._told()[0])
        sent = _in_order([(places, turn.loss([body[k] for k in places])) for places, turn in self._turns])
        self._told = self._session.server.backward(self._sent(sent), self._seeds, self._micro)

    def back(self) -> tuple[Tensor, Tensor]:
        """Return the summed gradients [K, P], and the losses [2, K], once BACK is there."""
        back, at_server = self._told()
        self._sent(back)
        found = [(places, turn.back([back[k] for k in places]), turn.loss_2K) for places, turn in self._turns]
        return _together(self._step.leaves, found, _scaled(at_server, self._step.scaling_K))

    def _sent(self, messages: Sequence[Message]) -> Sequence[Message]:
        self._session.tally.add(messages)
        return messages


def _scaled(tree: Tree, scaling_K: Tensor | None) -> Tree:
    """Return adapters [K, ...], or their gradients, of clients with ranks of their own in the server's scale."""
    if scaling_K is None:
        return tree
    return {
        name: value * scaling_K.view(-1, *[1] * (value.dim() - 1)) if name.endswith("lora_B") else value
        for name, value in tree.items()
    }


def _in_order(found: Sequence[tuple[list[int], list[Message]]]) -> list[Message]:
    """Return messages in the order of the clients."""
    by_place = {k: one for places, messages in found for k, one in zip(places, messages, strict=True)}
    return [by_place[k] for k in sorted(by_place)]


def _together(leaves: Tree, found: Sequence[tuple[list[int], Tree, Tensor]], at_server: Tree) -> tuple[Tensor, Tensor]:
    """Return rows of gradients [K, P] and losses [2, K] of all clients from those of each cut.

    Where a client does not keep a block that others keep, its gradient comes from the server.
    """
    places, own, loss_2K = found[0]
    if len(found) == 1:
        return torch.cat([own[name].flatten(1) for name in leaves], dim=1), loss_2K
    loss_2K = loss_2K.new_zeros(2, sum(len(places) for places, _, _ in found))
    grads = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()} | at_server
    for places, own, loss_2C in found:
        loss_2K[:, places] = loss_2C
        for name, grad in own.items():
            grads[name] = grads[name].index_copy(0, torch.tensor(places, device=grad.device), grad)
    return torch.cat([grads[name].flatten(1) for name in leaves], dim=1), loss_2K


class InOnePlace(Engine):
    """Carries jobs to clients that share this process with the server; all clients of a round train together."""

    def __init__(self, settings: SplitSettings) -> None:
        self._settings = settings

    def start(self, work: Work) -> Carrier:
        """Return a carrier that trains all jobs of a round when the first report is asked for."""
        model, settings = splittable(work.model), self._settings
        clients = work.plan.clients
        cuts = {client: settings.cuts[at % len(settings.cuts)] for at, client in enumerate(clients)}
        middle = Middle.of(model, tuple(dict.fromkeys(cuts.values())))
        ends = {cut: Ends.of(model, cut) for cut in dict.fromkeys(cuts.values())}
        rate = settings.rate(work.plan.local.lr)
        spaces: dict[int, Workspace] = {}

        def carry(jobs: Iterable[Job]) -> Iterator[Report]:
            if not (asked := list(jobs)):
                return
            body = settings.body(middle, cuts, work.plan.local, clients)
            body.load(asked[0].middle)
            shield = Shield(settings.defences, (work.plan.seed, asked[0].round))
            for job in asked:
                shield.remember(job.client, job.local.memory)
            session = Session(model, work.task, Here(body), ends, cuts, settings, (work.plan.seed,), rate, shield)
            space = spaces.setdefault(len(asked), Workspace.of(work, len(asked)))
            reports = train_clients(work, asked, space, session.slope)
            told = [with_kept(one, session) for one in reports]
            yield from told[:-1]
            yield replace(told[-1], middle=with_middle(asked[0].middle, body.kept()))

        return carry


@dataclass(frozen=True)
class Here:
    """A server in this process."""

    body: Body

    def forward(self, arrived: Sequence[Message], seeds: Seeds, lent: Tree, micro: int) -> Answers:
        """Return BODY."""
        answers, refused = self.body.forward(arrived, seeds, lent, micro)
        _refuse(refused)
        return lambda: (answers, {})

    def backward(self, arrived: Sequence[Message], seeds: Seeds, micro: int) -> Answers:
        """Return BACK."""
        answers, refused, lent = self.body.backward(arrived, seeds, micro)
        _refuse(refused)
        return lambda: (answers, lent)

    def step(self, lr: float) -> object:
        """Move the server's adapters."""
        return self.body.step(lr)


def _refuse(refused: Mapping[str, str]) -> None:
    """End the run where all parties are one: who sent what is not taken is this program."""
    if refused:
        raise TrainingError(next(iter(refused.values())))


def with_kept(report: Report, session: Session) -> Report:
    """Return a report with what passed, and with what its client remembers of it."""
    client = report.client
    return replace(report, traffic=session.tally.of(client), memory={**report.memory, **session.shield.kept(client)})


def with_middle(before: Slots, now: Slots) -> Slots:
    """Return what is kept after a round: those clients' that took no part as it was."""
    return {slot: {**before.get(slot, {}), **tree} for slot, tree in now.items()}


def splittable(model: Model) -> LanguageModel:
    """Return a model that can be split; ConfigError for one whose clients have no gradients of their own."""
    model = language_model(model)
    if not model.stackable:
        raise ConfigError(
            "model.lora_rank: found 0, which trains all weights, with protocol 'split', whose server keeps the "
            "gradients of several clients apart; allowed are adapters, lora_rank >= 1, or a prefix."
        )
    return model
