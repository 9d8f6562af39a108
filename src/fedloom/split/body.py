"""The server of a split step: it runs the middle of the model for several clients at once, and trains its adapters.

Of a client it sees states, lengths and gradients. The rows of all clients are one packed batch (client-batching of
FL-GLM, arXiv:2406.14898), whose adapters carry a client axis: each client then has a gradient of its own, which is
checked, clipped and counted by itself, whether there is one adapter for all or one for each.

Objective (4.3 of the specification): the sum of the token losses over the tokens of all clients. With n_k tokens of
client k, N of all, and g_k the gradient of its mean loss, clipped at the norm C,

    shared     G   = sum_k n_k / N  clip(g_k, C)        one step along G, whose norm is at most C
    private    G_k = clip(g_k, C)                       a step of each client's own adapter along its own
    replicas   the same as shared among the clients of each; every E steps, and when a round ends, each replica becomes
               the mean of all, weighed by the tokens since the last time (1.6: sub-servers under a central one)

What never came is a row of zeros in the backward pass and no part of N. In `recompute` mode nothing but the states that
came is kept between FWD and GRAD, and the forward pass is made again: dropout draws by name, so that it is the same.

Shapes: K clients of a batch, N tokens, D width, P numbers in a row of adapters.

Deviations: the public code's server takes the sum of the clients' mean gradients, K times the objective's. In one
process forward and backward of a step meet the same adapters, so no older version has to be kept. Replicas average the
factors of adapters, not their products; here all their clients pass in one batch, each by its own replica.
"""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedloom.base.errors import DataError, TrainingError
from fedloom.base.tree import Layout, Slots, Tree, flatten
from fedloom.contracts.language import LanguageModel
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.optimisers import Moments, advance
from fedloom.split.cut import Cut, anatomy_of, segments
from fedloom.split.messages import Kind, Message
from fedloom.split.parts import Part, part_of
from fedloom.split.passing import Passing, joined, of_lengths, together
from fedloom.split.wire import Wire

__all__ = ["Adapters", "Body", "Middle", "Seeds"]

Seeds = Mapping[str, tuple[str | int, ...]]
"""By what names each client's dropout is drawn."""


@dataclass(frozen=True)
class Middle:
    """What of a model is the server's, cut once for a run."""

    model: LanguageModel
    parts: tuple[Part, ...]
    """Stretches of blocks, in each of which the same clients pass."""
    initial: Tree
    """The parameters that the server trains, in the order of a row: those of blocks that no client keeps."""

    @classmethod
    def of(cls, model: LanguageModel, cuts: Sequence[Cut]) -> "Middle":
        """Return the middle of a model for clients of these cuts."""
        anatomy = anatomy_of(model.module)
        parts = tuple(part_of(model, blocks) for blocks in segments(cuts, anatomy.n_blocks))
        own = {name: value for name, value in model.trainable.items() if anatomy.at_server(name, cuts)}
        return cls(model, parts, own)


@dataclass
class _Gathered:
    """What came of one client's gradient in a step."""

    sum_P: Tensor
    weight: float = 0.0
    complete: bool = True


@dataclass(frozen=True)
class Adapters:
    """Which adapter of the server each client meets."""

    of: Mapping[str, str]
    """The adapter's name by client: its own for private ones, "" for one that all share."""
    replicas: bool = False
    """Whether they are copies of one adapter, which are averaged."""
    every: int = 0
    """Steps between averages; 0: when a round ends."""


class Body:
    """The server in one round: adapters by name, with their optimisers."""

    def __init__(
        self,
        middle: Middle,
        cuts: Mapping[str, Cut],
        wire: Wire,
        settings: LocalSettings,
        adapters: Adapters,
        *,
        recompute: bool = False,
        tokens: int = 0,
    ) -> None:
        """Start with the middle's initial parameters; `settings` are those of its optimiser.

        With `recompute` nothing but what came is kept from FWD to GRAD; `tokens` bounds what passes at once (0: no
        bound).
        """
        self.middle, self._cuts, self._wire, self._settings = middle, cuts, wire, settings
        self._adapters, self._most = adapters, tokens
        self._layout = Layout.of_tree(middle.initial)
        self._rows: dict[str, tuple[Tensor, Moments]] = {}
        self._tokens = Counter[str]()
        self._steps = 0
        self._passing: dict[int, list[Passing]] = {}
        self.gathered: dict[str, _Gathered] = {}
        """What has come of each client's gradient since the last step."""
        self.recomputes = recompute
        """Whether nothing but what came is kept from FWD to GRAD."""

    # ------------------------------------------------------------------------------------------------ what is kept

    def load(self, kept: Slots) -> None:
        """Take up adapters and optimisers as `kept` gave them; what is not among them starts anew."""
        for name, steps in kept.get("steps", {}).items():
            row_1P, moments = self._row(name)
            row_1P[0].copy_(kept["rows"]["" if self._adapters.replicas else name])
            moments.load(0, {"first": kept["first"][name], "second": kept["second"][name], "steps": steps})

    def kept(self) -> Slots:
        """Return adapters and optimisers, each a tree by name, when a round ends; replicas are one adapter then."""
        if self._adapters.replicas:
            self._average()
        slots: Slots = {"rows": {}, "first": {}, "second": {}, "steps": {}}
        for name, (row_1P, moments) in self._rows.items():
            slots["rows"]["" if self._adapters.replicas else name] = row_1P[0].detach().cpu().clone()
            for slot, value in moments.saved(0).items():
                slots[slot][name] = value.cpu()
        return slots

    def params(self, client: str) -> Tree:
        """Return the adapter that a client's states meet."""
        return self._layout.tree(self._row(self._adapters.of[client])[0][0])

    def _row(self, name: str) -> tuple[Tensor, Moments]:
        if name not in self._rows:
            row_1P = flatten(self.middle.initial).to(self.middle.model.device, copy=True)[None]
            self._rows[name] = row_1P, Moments.like(row_1P, self._settings)
        return self._rows[name]

    def _average(self) -> None:
        """Let every replica be the mean of all, weighed by the tokens of their clients since the last time."""
        total = sum(self._tokens.values())
        if total:
            parts = [self._tokens[name] / total * row_1P for name, (row_1P, _) in self._rows.items()]
            mean_1P = torch.stack(parts).sum(0)
            for row_1P, _ in self._rows.values():
                row_1P.copy_(mean_1P)
        self._tokens.clear()

    # ---------------------------------------------------------------------------------------------------- one step

    def forward(
        self, arrived: Sequence[Message], seeds: Seeds, lent: Tree | None = None, micro: int = 0
    ) -> tuple[list[Message], dict[str, str]]:
        """Return BODY for each FWD of a micro-batch, and why any was refused: who is has no part in the batch.

        `lent` are parameters [K, ...] of blocks that some clients keep and these leave to the server.
        """
        found, refused = self._read(arrived, {one.client: one.lengths for one in arrived})
        if not found:
            return [], refused
        arrived = [one for one, _ in found.values()]
        states = [rows.to(self.middle.model.device, self.middle.parts[0].dtype) for _, rows in found.values()]
        clients, lengths = tuple(found), tuple(one.lengths for one in arrived)
        leaves = self._leaves(clients, lent or {})
        whole = Passing(clients, lengths, tuple(one.prompts for one in arrived), states, leaves)
        left = dict[str, Tensor]()
        for places in together([one.n_tokens for one in arrived], self._most):
            passing = whole.of([clients[k] for k in places]) if self._most else whole
            with torch.set_grad_enabled(not self.recomputes):
                out = self._passed(passing, seeds)
            passing.left = [] if self.recomputes else out
            self._passing.setdefault(micro, []).append(passing)
            left |= dict(zip(passing.clients, out, strict=True))
        messages, odd = self._sent("BODY", {one.client: (one, left[one.client]) for one in arrived})
        return messages, refused | odd

    def backward(
        self, arrived: Sequence[Message], seeds: Seeds, micro: int = 0, *, last: bool = True
    ) -> tuple[list[Message], Mapping[str, str], Tree]:
        """Return BACK for each GRAD of a micro-batch, why any was refused, and the gradients of what was lent.

        A refused client and one whose gradient is missing get nothing, and the step goes on without them. Unless these
        are the `last` of the micro-batch, more may come: in recompute mode of any client, else of other batches alone.
        """
        passings = self._passing.pop(micro, [])
        lengths = {client: own for one in passings for client, own in zip(one.clients, one.lengths, strict=True)}
        found, refused = self._read(arrived, lengths)
        back, by_client = dict[str, Tensor](), dict[str, Tree]()
        came = {client: one.weight for client, (one, _) in found.items()}
        for passing in passings:
            now, later = self._parted(passing, {one.client for one in arrived}, last=last)
            if later is not None:
                self._passing.setdefault(micro, []).append(later)
            if now is not None:
                own, by_leaf = self._slopes(now, found, seeds)
                back |= own
                self._gather(now.clients, by_leaf, came)
                by_client |= {
                    client: {name: leaf[k] for name, leaf in by_leaf.items() if name not in self.middle.initial}
                    for k, client in enumerate(now.clients)
                }
        messages, odd = self._sent("BACK", {client: (one, back[client]) for client, (one, _) in found.items()})
        for client in odd:
            self.gathered[client].complete = False
        trees = [by_client[client] for client in lengths if client in by_client]
        lent = {name: torch.stack([tree[name] for tree in trees]) for name in (trees[0] if trees else ())}
        return messages, refused | odd, lent

    def _parted(self, passing: Passing, came: Set[str], *, last: bool) -> tuple[Passing | None, Passing | None]:
        """Return what of a batch is to be computed with those that came, and what waits for others."""
        if last or set(passing.clients) <= came:
            return passing, None
        if not set(passing.clients) & came or not self.recomputes:
            return None, passing
        rest = [client for client in passing.clients if client not in came]
        return passing.of([*came]), passing.of(rest)

    def _slopes(
        self, passing: Passing, found: Mapping[str, tuple[Message, Tensor]], seeds: Seeds
    ) -> tuple[dict[str, Tensor], Tree]:
        """Return gradients [N_k, D] of each client's states, and [K, ...] of parameters: zeros for who sent none."""
        left = passing.left or self._passed(passing, seeds)
        slopes = [
            found[client][1].to(out) if client in found else torch.zeros_like(out)
            for client, out in zip(passing.clients, left, strict=True)
        ]
        leaves = [*passing.leaves.values(), *passing.arrived]
        grads = torch.autograd.grad(left, leaves, slopes, allow_unused=True, materialize_grads=True)
        states = grads[len(passing.leaves) :]
        return dict(zip(passing.clients, states, strict=True)), dict(zip(passing.leaves, grads, strict=False))

    def step(self, lr: float) -> list[str]:
        """Move the adapters by the gradients of all micro-batches since the last step; return who took part.

        Clients of whom a gradient was missing or refused have no part in it.
        """
        for client in (client for some in self._passing.values() for one in some for client in one.clients):
            self.gathered.pop(client, None)
        self._passing = {}
        came = {client: one for client, one in self.gathered.items() if one.complete and one.weight}
        self.gathered = {}
        if not came or not self._layout.size:
            return list(came)
        for name in dict.fromkeys(self._adapters.of[client] for client in came):
            theirs = [one for client, one in came.items() if self._adapters.of[client] == name]
            total = sum(one.weight for one in theirs)
            clipped = [_clipped(one.sum_P / one.weight, self._settings.clip_norm) for one in theirs]
            shares = [one.weight / total * grad_P for one, grad_P in zip(theirs, clipped, strict=True)]
            row_1P, moments = self._row(name)
            advance(row_1P, torch.stack(shares).sum(0)[None], moments, self._settings, lr=lr)
            self._tokens[name] += int(total)
        self._steps += 1
        if self._adapters.every and self._steps % self._adapters.every == 0:
            self._average()
        return list(came)

    def _read(
        self, arrived: Sequence[Message], lengths: Mapping[str, Sequence[int]]
    ) -> tuple[dict[str, tuple[Message, Tensor]], dict[str, str]]:
        """Return messages with their rows by client, and by client why others are refused.

        What a client says of lengths counts with FWD alone; a weight is no more than the tokens that it is of.
        """
        found, refused = dict[str, tuple[Message, Tensor]](), dict[str, str]()
        for one in arrived:
            own = lengths.get(one.client, ())
            try:
                if not own or min(own) < 1:
                    raise DataError(
                        f"{one.where}: found sequences of {list(own)} tokens, allowed are some, of 1 or more."
                    )
                if one.kind == "FWD":
                    _check_prompts(one, both_ways=self.middle.model.both_ways)
                if not 0 <= one.weight <= sum(own):
                    raise DataError(
                        f"{one.where}: found a weight of {one.weight:g}, allowed are 0 to {sum(own)} tokens."
                    )
                rows_ND = self._wire.decode(one.packet, sum(own), self.middle.model.width, one.where)
                found[one.client] = one, rows_ND
            except (DataError, TrainingError) as error:
                refused[one.client] = str(error)
        return found, refused

    def _sent(self, kind: Kind, rows: Mapping[str, tuple[Message, Tensor]]) -> tuple[list[Message], dict[str, str]]:
        """Return the answer to each client's message, and by client why there is none: numbers beyond the wire."""
        messages, refused = list[Message](), dict[str, str]()
        for client, (asked, rows_ND) in rows.items():
            answer = replace(asked, kind=kind, weight=0.0, prompts=())
            try:
                messages.append(replace(answer, packet=self._wire.encode(rows_ND, answer.where)))
            except TrainingError as error:
                refused[client] = str(error)
        return messages, refused

    # ---------------------------------------------------------------------------------------------------- a batch

    def _leaves(self, clients: Sequence[str], lent: Tree) -> Tree:
        """Return the parameters [K, ...] that these clients' states meet, as leaves of a graph."""
        names = [self._adapters.of[client] for client in clients]
        one_for_all = len(set(names)) == 1
        rows_KP = (
            self._row(names[0])[0].expand(len(names), -1)
            if one_for_all
            else torch.cat([self._row(name)[0] for name in names])
        )
        own = self._layout.tree(rows_KP.detach()) if self._layout.size else {}
        return {name: leaf.detach().requires_grad_() for name, leaf in (own | lent).items()}

    def _passed(self, passing: Passing, seeds: Seeds) -> list[Tensor]:
        """Return each client's states behind the middle, stretch by stretch with those that pass it."""
        passing.arrived = [one.detach().requires_grad_() for one in passing.arrived]
        states = list(passing.arrived)
        n_blocks = anatomy_of(self.middle.model.module).n_blocks
        for part in self.middle.parts:
            inside = [self._cuts[client].middle(n_blocks) for client in passing.clients]
            active = [k for k, blocks in enumerate(inside) if part.blocks.start in blocks]
            if not active:
                continue
            told = [(passing.lengths[k], passing.prompts[k] or passing.lengths[k]) for k in active]
            batch = of_lengths(told, self.middle.model)
            params = self._meeting(passing.leaves, active)
            part.context.batch = batch
            part.context.seeds = tuple(seeds[passing.clients[k]] for k in active)
            given = joined([states[k] for k in active], batch)
            out = replace(part, given=given).passed(params, batch)
            for k, (start, size) in zip(active, batch.spans, strict=True):
                states[k] = out[start : start + size]
        return states

    def _meeting(self, leaves: Tree, active: Sequence[int]) -> Tree:
        """Return the parameters of some clients of a batch; of one client without a client axis where none may be."""
        if not self.middle.model.stackable:
            return {name: leaf[active[0]] for name, leaf in leaves.items()}
        everybody = len(active) == len(next(iter(leaves.values()), ()))
        return leaves if everybody else {name: leaf[list(active)] for name, leaf in leaves.items()}

    def _gather(self, clients: Sequence[str], by_leaf: Tree, weights: Mapping[str, float]) -> None:
        """Add a micro-batch's gradients to those of the step; who sent none is out of it."""
        own = [by_leaf[name].flatten(1) for name in self.middle.initial]
        rows_KP = torch.cat(own, dim=1) if own else torch.zeros(len(clients), 0)
        for k, client in enumerate(clients):
            so_far = self.gathered.setdefault(client, _Gathered(torch.zeros_like(rows_KP[k])))
            so_far.sum_P = so_far.sum_P + rows_KP[k]
            so_far.weight += weights.get(client, 0.0)
            so_far.complete &= client in weights and bool(torch.isfinite(rows_KP[k]).all())


def _check_prompts(message: Message, *, both_ways: bool) -> None:
    """Refuse a message that does not tell of each sequence how long its prompt is, or tells it where nobody asks."""
    told, own = message.prompts, message.lengths
    fits = len(told) == len(own) and all(0 <= n <= length for n, length in zip(told, own, strict=True))
    if fits if both_ways else not told:
        return
    wanted = "as many as sequences, none longer than its own" if both_ways else "none, as the model is causal"
    raise DataError(f"{message.where}: found lengths of prompts {list(told)}, allowed are {wanted}.")


def _clipped(grad_P: Tensor, clip_norm: float) -> Tensor:
    """Return a gradient scaled down to the norm `clip_norm`; 0 leaves it alone."""
    if not clip_norm:
        return grad_P
    return grad_P * torch.clamp(clip_norm / (torch.linalg.vector_norm(grad_P) + 1e-6), max=1.0)
