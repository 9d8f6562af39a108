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
from fedloom.split.messages import Message, Tally
from fedloom.split.wire import WIRES, WireName

__all__ = ["AtClient", "Exchange", "InOnePlace", "Server", "Session", "SplitSettings", "splittable", "with_middle"]


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
        return Body(middle, cuts, WIRES[self.wire], local, self.adapters(clients), recompute=self.recompute)

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


class Server(Protocol):
    """What the clients' side of a step asks of the server: `Body` in this process, or one on another machine."""

    def forward(
        self, arrived: Sequence[Message], seeds: Seeds, lent: Tree | None = None, micro: int = 0
    ) -> tuple[list[Message], Mapping[str, str]]:
        """Return BODY for each FWD, and why any was refused."""
        ...

    def backward(
        self, arrived: Sequence[Message], seeds: Seeds, micro: int = 0
    ) -> tuple[list[Message], Mapping[str, str], Tree]:
        """Return BACK for each GRAD, why any was refused, and the gradients of what was lent."""
        ...

    def step(self, lr: float) -> list[str]:
        """Move the server's adapters."""
        ...


@dataclass
class Session:
    """The server and the clients' ends in one round."""

    model: LanguageModel
    task: Task
    body: Server
    ends: Mapping[Cut, Ends]
    cuts: Mapping[str, Cut]
    settings: SplitSettings
    seed: tuple[str | int, ...]
    """What names the draws of the run."""
    rate: float = 1.0
    """The server's rate over the clients'."""
    shield: Shield = field(default_factory=Shield)
    tally: Tally = field(default_factory=Tally)

    def slope(self, step: Step) -> tuple[Tensor, Tensor]:
        """Return the gradient of each client's own parameters [K, P], and totals and weights of its loss [2, K].

        The server has then taken its step.
        """
        grad_KP, loss_2K = self._micro(step, 0)
        for micro in range(1, len(step.parts[0])):
            more_KP, more_2K = self._micro(step, micro)
            grad_KP += more_KP
            loss_2K += more_2K
        self.body.step(step.lr * self.rate)
        return grad_KP.div_(loss_2K[1][:, None]), loss_2K

    def _micro(self, step: Step, micro: int) -> tuple[Tensor, Tensor]:
        """Return the summed gradients [K, P] of one micro-batch of all clients, and their losses [2, K]."""
        seeds = {client: (*self.seed, step.round, client, step.number, micro, "dropout") for client in step.clients}
        lent = _scaled({name: leaf for name, leaf in step.leaves.items() if name in self._lent}, step.scaling_K)
        turns = [(places, self._turn(step, micro, places, seeds)) for places in self._by_cut(step.clients)]
        ahead = self._sent(_in_order([(places, turn.ahead()) for places, turn in turns]))
        body, refused = self.body.forward(ahead, seeds, lent, micro)
        _refuse(refused)
        self._sent(body)
        slopes = [(places, turn.loss([body[k] for k in places])) for places, turn in turns]
        back, refused, at_server = self.body.backward(self._sent(_in_order(slopes)), seeds, micro)
        _refuse(refused)
        self._sent(back)
        found = [(places, turn.back([back[k] for k in places]), turn.loss_2K) for places, turn in turns]
        return _together(step.leaves, found, _scaled(at_server, step.scaling_K))

    def _turn(self, step: Step, micro: int, places: Sequence[int], seeds: Mapping[str, tuple[str | int, ...]]) -> Turn:
        clients = tuple(step.clients[k] for k in places)
        everybody = len(places) == len(step.clients)
        leaves = step.leaves if everybody else {name: leaf[list(places)] for name, leaf in step.leaves.items()}
        parts = [step.parts[k][micro] for k in places]
        said = Said(clients, step.number, micro, WIRES[self.settings.wire])
        scaling_K = step.scaling_K if step.scaling_K is None else step.scaling_K[list(places)]
        ends = self.ends[self.cuts[clients[0]]]
        return Turn(ends, self.task, leaves, parts, said, [seeds[client] for client in clients], scaling_K, self.shield)

    @property
    def _lent(self) -> frozenset[str]:
        """The parameters of blocks that some clients keep and others leave to the server."""
        if len(self.ends) == 1:
            return frozenset()
        every = [frozenset(ends.names) for ends in self.ends.values()]
        return frozenset[str]().union(*every) - frozenset.intersection(*every)

    def _by_cut(self, clients: Sequence[str]) -> list[list[int]]:
        """Return the places of the clients of each cut."""
        return [
            places for cut in self.ends if (places := [k for k, one in enumerate(clients) if self.cuts[one] == cut])
        ]

    def _sent(self, messages: list[Message]) -> list[Message]:
        self.tally.add(messages)
        return messages


def _scaled(tree: Tree, scaling_K: Tensor | None) -> Tree:
    """Return adapters [K, ...], or their gradients, of clients with ranks of their own in the server's scale."""
    if scaling_K is None:
        return tree
    return {
        name: value * scaling_K.view(-1, *[1] * (value.dim() - 1)) if name.endswith("lora_B") else value
        for name, value in tree.items()
    }


def _refuse(refused: Mapping[str, str]) -> None:
    """End the run where all parties are one: who sent what is not taken is this program."""
    if refused:
        raise TrainingError(next(iter(refused.values())))


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
            session = Session(model, work.task, body, ends, cuts, settings, (work.plan.seed,), rate, shield)
            space = spaces.setdefault(len(asked), Workspace.of(work, len(asked)))
            reports = train_clients(work, asked, space, session.slope)
            told = [_with_kept(one, session) for one in reports]
            yield from told[:-1]
            yield replace(told[-1], middle=with_middle(asked[0].middle, body.kept()))

        return carry


Exchange = Callable[[Message], Message]
"""Sends one message of a client to the server, and returns the answer."""


@dataclass(frozen=True)
class _Elsewhere:
    """A server on another machine, for one client; it steps by itself."""

    exchange: Exchange

    def forward(
        self, arrived: Sequence[Message], seeds: Seeds, lent: Tree | None = None, micro: int = 0
    ) -> tuple[list[Message], Mapping[str, str]]:
        """Return BODY."""
        return [self.exchange(one) for one in arrived], {}

    def backward(
        self, arrived: Sequence[Message], seeds: Seeds, micro: int = 0
    ) -> tuple[list[Message], Mapping[str, str], Tree]:
        """Return BACK."""
        return [self.exchange(one) for one in arrived], {}, {}

    def step(self, lr: float) -> list[str]:
        """Leave it to the server."""
        return []


class AtClient(Engine):
    """Carries jobs to clients of this machine whose server is elsewhere, one after another."""

    def __init__(self, settings: SplitSettings, exchange: Exchange, secret: str = "") -> None:
        """Take the way to the server, and what it does not know: the noise that leaves here is drawn by it."""
        self._settings, self._exchange, self._secret = settings, exchange, secret

    def start(self, work: Work) -> Carrier:
        """Return a carrier that trains each job with the server's help; ConfigError for clients of several cuts."""
        model, settings = splittable(work.model), self._settings
        cut = settings.one_cut()
        ends, space = {cut: Ends.of(model, cut)}, Workspace.of(work, 1)

        def carry(jobs: Iterable[Job]) -> Iterator[Report]:
            for job in jobs:
                server, cuts = _Elsewhere(self._exchange), {job.client: cut}
                shield = Shield(settings.defences, (self._secret or work.plan.seed, job.round))
                shield.remember(job.client, job.local.memory)
                session = Session(model, work.task, server, ends, cuts, settings, (work.plan.seed,), shield=shield)
                (report,) = train_clients(work, [job], space, session.slope)
                yield _with_kept(report, session)

        return carry


def _with_kept(report: Report, session: Session) -> Report:
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
            "gradients of several clients apart; allowed are adapters, lora_rank >= 1."
        )
    return model
