"""The client of a split step: the input part in front of the server, the output part with the loss behind it.

Text, tokens, targets, logits and losses stay here. What is computed is what the whole model computes, by the same code:
loss and gradients are those of the uncut model, bit for bit where one client passes alone.

Several clients of one place may pass together, as in a simulation: parameters then carry a client axis, and each still
has messages of its own.

Shapes: K clients, N tokens of a packed row, D width, N_k real tokens of a client.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from fedloom.base.errors import ModelError
from fedloom.base.tree import Tree
from fedloom.contracts.federated import Batch, Item, Task
from fedloom.contracts.language import LanguageModel, PackedBatch
from fedloom.contracts.model import sums_by
from fedloom.split.buckets import bucketed
from fedloom.split.cut import Cut, anatomy_of
from fedloom.split.defences import Shield
from fedloom.split.messages import Kind, Message
from fedloom.split.nopeek import distance_correlation
from fedloom.split.parts import Part, part_of
from fedloom.split.wire import Wire

__all__ = ["Ends", "Said", "Turn"]


@dataclass(frozen=True)
class Ends:
    """The two parts of a model that a client of some cut keeps."""

    model: LanguageModel
    front: Part
    rear: Part

    @classmethod
    def of(cls, model: LanguageModel, cut: Cut) -> "Ends":
        """Return the ends of a model; ConfigError for a cut that does not fit."""
        n_blocks = anatomy_of(model.module).n_blocks
        middle = cut.middle(n_blocks)
        return cls(model, part_of(model, range(middle.start)), part_of(model, range(middle.stop, n_blocks)))

    @property
    def names(self) -> list[str]:
        """The trained parameters that lie here, by their names in the whole model; a tied one once."""
        return list(dict.fromkeys((*self.front.names.values(), *self.rear.names.values())))

    @property
    def n_words(self) -> int:
        """Tokens that the head tells apart."""
        return self.rear.module.get_submodule(anatomy_of(self.model.module).head).get_parameter("weight").shape[0]

    def embedded(self, tokens_N: Tensor) -> Tensor:
        """Return the embeddings [N, D] of tokens, of which nothing is trained."""
        anatomy = anatomy_of(self.model.module)
        table_VD = self.front.module.get_parameter(f"{anatomy.body}.{anatomy.tables[0]}.weight")
        return functional.embedding(tokens_N, table_VD.detach())


@dataclass(frozen=True)
class Said:
    """What of a step is in the head of every message."""

    clients: tuple[str, ...]
    step: int
    micro: int
    wire: Wire


class Turn:
    """One micro-batch of K clients of one cut: FWD, then GRAD for BODY, then gradients for BACK."""

    def __init__(
        self,
        ends: Ends,
        task: Task,
        leaves: Tree,
        parts: Sequence[Sequence[Item]],
        said: Said,
        seeds: Sequence[tuple[str | int, ...]],
        scaling_K: Tensor | None = None,
        shield: Shield | None = None,
    ) -> None:
        """Take parameters [K, ...] by name, the items of each client, and what defends them; left out: nothing."""
        self._ends, self._task, self._said, self._shield = ends, task, said, shield or Shield()
        bucket, most = self._shield.defences.bucket, ends.model.positions
        self._leaves = {name: leaves[name] for name in ends.names}
        self._batch = _packed(task.collate([bucketed(part, bucket, most) for part in parts], ends.model))
        self._seeds, self._scaling_K = tuple(seeds), scaling_K
        self._lengths = _by_client(self._batch, [length for _, length in self._batch.lines], len(parts))
        self._prompts = [()] * len(parts)
        if ends.model.both_ways and self._batch.prompt_E is not None:
            self._prompts = _by_client(self._batch, self._batch.prompt_E.tolist(), len(parts))
        self._fakes = [k for k, one in enumerate(said.clients) if self._shield.fake(one, said.step, said.micro)]
        self._ahead = torch.zeros(0)
        self._grads: Tree = {}
        self.loss_2K = torch.zeros(2, len(parts))
        """Total and weight of each client's loss, once it is known."""

    def ahead(self) -> list[Message]:
        """Return FWD of each client: the states behind the input part."""
        self._say(self._ends.front)
        self._ahead = self._ends.front.passed(self._params(), self._batch)
        sent = self._messages("FWD", self._ahead)
        return [replace(one, prompts=prompts) for one, prompts in zip(sent, self._prompts, strict=True)]

    def loss(self, arrived: Sequence[Message]) -> list[Message]:
        """Return GRAD of each client from its BODY: the gradient of its summed loss by the states that came."""
        self._say(self._ends.rear)
        given = self._joined(arrived).requires_grad_()
        rear, params = replace(self._ends.rear, given=given), self._params()
        losses = self._task.loss(rear, rear.of(params), self._batch)
        sums = torch.stack((losses.total_B, losses.weight_B)).detach()
        self.loss_2K = sums_by(sums, self._batch.owner_X, len(self._said.clients))
        if self._fakes:
            losses = self._task.loss(rear, rear.of(params), self._faked())
        (slope_ND,) = self._slopes([losses.total_B.sum()], [given], rear)
        weights = self.loss_2K[1].tolist()
        return [replace(one, weight=w) for one, w in zip(self._messages("GRAD", slope_ND), weights, strict=True)]

    def back(self, arrived: Sequence[Message]) -> Tree:
        """Return the gradients [K, ...] of what lies at the ends, by name, from each client's BACK."""
        self._say(self._ends.front)
        slope_ND = self._joined(arrived)
        for one, (start, size), weight in zip(arrived, self._batch.spans, self.loss_2K[1].tolist(), strict=True):
            self._shield.look(one, slope_ND[start : start + size], weight)
        if self._ahead.requires_grad:
            penalty = self._penalties()
            slopes = [slope_ND, *(one.new_tensor(1.0) for one in penalty)]
            self._slopes([self._ahead, *penalty], [], self._ends.front, slopes)
        grads = {name: self._grads.get(name, torch.zeros_like(leaf)) for name, leaf in self._leaves.items()}
        fakes = torch.tensor(self._fakes, dtype=torch.int64, device=slope_ND.device)
        return {name: grad.index_fill(0, fakes, 0.0) for name, grad in grads.items()} if self._fakes else grads

    def _penalties(self) -> list[Tensor]:
        """Return what each client's states have in common with its embeddings, in the units of its summed loss."""
        if not (weight := self._shield.defences.nopeek):
            return []
        embedded_ND, found = self._ends.embedded(self._batch.tokens_N), list[Tensor]()
        for (start, size), tokens in zip(self._batch.spans, self.loss_2K[1].tolist(), strict=True):
            own = slice(start, start + size)
            found.append(weight * tokens * distance_correlation(embedded_ND[own], self._ahead[own]))
        return found

    def _faked(self) -> PackedBatch:
        """Return the batch with random targets where a client's step is a fake."""
        batch, said = self._batch, self._said
        n_words = self._ends.n_words
        targets_S, owner_S = batch.targets_S.clone(), batch.owner_X[batch.example_S]
        for k in self._fakes:
            drawn_S = self._shield.targets(said.clients[k], said.step, said.micro, int((owner_S == k).sum()), n_words)
            targets_S[owner_S == k] = drawn_S.to(targets_S)
        return replace(batch, targets_S=targets_S)

    def _say(self, part: Part) -> None:
        """Let a part's layers know of this micro-batch; another one may have passed since."""
        part.context.batch, part.context.seeds, part.context.scaling_K = self._batch, self._seeds, self._scaling_K

    def _params(self) -> Tree:
        stackable = self._ends.model.stackable
        return self._leaves if stackable else {name: leaf[0] for name, leaf in self._leaves.items()}

    def _slopes(
        self, values: list[Tensor], states: list[Tensor], part: Part, slopes: list[Tensor] | None = None
    ) -> list[Tensor]:
        """Add the gradients of a part's parameters to those so far; return those by the states."""
        names = list(dict.fromkeys(part.names.values()))
        leaves = [*states, *(self._leaves[name] for name in names)]
        grads = torch.autograd.grad(values, leaves, slopes, allow_unused=True, materialize_grads=True)
        for name, grad in zip(names, grads[len(states) :], strict=True):
            # A tied parameter has a part of its gradient from either end.
            self._grads[name] = self._grads[name] + grad if name in self._grads else grad
        return list(grads[: len(states)])

    def _messages(self, kind: Kind, rows_ND: Tensor) -> list[Message]:
        """Return each client's real tokens as a message."""
        said, found = self._said, list[Message]()
        for client, lengths, (start, size) in zip(said.clients, self._lengths, self._batch.spans, strict=True):
            where = f"client '{client}', step {said.step}, {kind}"
            rows = self._shield.noise.on(rows_ND[start : start + size], kind, client, said.step, said.micro)
            packet = said.wire.encode(rows, where)
            found.append(Message(kind, client, said.step, said.micro, packet, lengths))
        return found

    def _joined(self, arrived: Sequence[Message]) -> Tensor:
        """Return what came for each client at its place in the row, zeros where there is padding."""
        row_ND = torch.zeros_like(self._ahead)
        for one, lengths, (start, size) in zip(arrived, self._lengths, self._batch.spans, strict=True):
            rows = self._said.wire.decode(one.packet, sum(lengths), row_ND.shape[1], one.where)
            row_ND[start : start + size] = rows.to(row_ND)
        return row_ND


def _packed(batch: Batch) -> PackedBatch:
    """Return a batch that is one of texts; ModelError for another."""
    if not isinstance(batch, PackedBatch):
        raise ModelError(f"split: found a {type(batch).__name__}, allowed are batches of texts: take a task of texts.")
    return batch


def _by_client(batch: PackedBatch, values: Sequence[int], n_clients: int) -> list[tuple[int, ...]]:
    """Return each client's own of a value for each sequence."""
    found: list[list[int]] = [[] for _ in range(n_clients)]
    for client, value in zip(batch.client_E.tolist(), values, strict=True):
        found[client].append(value)
    return [tuple(own) for own in found]
