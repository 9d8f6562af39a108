"""What is attacked: a client's texts as the server sees them, and what the server knows of the client's weights.

The server knows the base weights, as anybody does of an open model, and whatever client parts it merges. What it does
not know is how far a client's own part has moved since: `known` is what it takes the weights for, `params` what they
are. Audits run at the owner of the texts: nothing of this leaves it.

Shapes: T tokens of a text, D width of a state, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from fedloom.base.tree import Slots, Tree, flatten
from fedloom.contracts.federated import Task
from fedloom.contracts.language import Encoded, LanguageModel
from fedloom.contracts.local_settings import LocalSettings
from fedloom.models.packing import pack
from fedloom.split.body import Adapters, Body, Middle
from fedloom.split.cut import Cut
from fedloom.split.defences import Defences, Shield
from fedloom.split.ends import Ends, Said, Turn
from fedloom.split.messages import Message
from fedloom.split.parts import Part
from fedloom.split.wire import WIRES, WireName

__all__ = ["Capture", "Recovered", "Target", "recovered", "states_of"]

_TOKENS = 8192
"""Tokens that pass at once."""


@dataclass(frozen=True)
class Recovered:
    """What came of an attack: the share of tokens that were read, and how much of each text in its order."""

    tokens: float
    """TRR: the share of tokens that are exactly right at their place."""
    rouge_l: float
    """Mean F of the longest common subsequence of a text's tokens (Lin, 2004, section 3.1, beta 1)."""


def recovered(found: Sequence[Sequence[int]], true: Sequence[Sequence[int]]) -> Recovered:
    """Return how much of the true tokens was found."""
    right = sum(a == b for one, other in zip(found, true, strict=True) for a, b in zip(one, other, strict=True))
    rouge = [_common(one, other) / max(1, len(other)) for one, other in zip(found, true, strict=True)]
    return Recovered(right / max(1, sum(map(len, true))), sum(rouge) / max(1, len(rouge)))


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the longest common subsequence; F is that over the length where both are equally long."""
    row = [0] * (len(second) + 1)
    for token in first:
        last = row
        row = [0]
        for at, other in enumerate(second):
            row.append(last[at] + 1 if token == other else max(last[at + 1], row[at]))
    return row[-1]


@dataclass(frozen=True)
class Capture:
    """One step of one client as it passed the wire, read as the server reads it."""

    messages: tuple[Message, ...]
    ahead: tuple[Tensor, ...]
    """The states [T, D] behind the input part of each text."""
    middle: tuple[Tensor, ...]
    """Those that the server gave back."""
    slopes: tuple[Tensor, ...]
    """The gradients [T, D] of the summed loss by these."""


@dataclass(frozen=True)
class Target:
    """A client's texts in split training, and what the server takes its weights for."""

    model: LanguageModel
    task: Task
    cut: Cut
    wire: WireName
    params: Tree
    """All trained parameters, as client and server have them."""
    known: Tree
    """What the server takes those of the client for."""
    texts: tuple[Encoded, ...]
    defences: Defences = field(default_factory=Defences)
    """What the client does to what leaves it; the attacker knows that it does."""

    @cached_property
    def ends(self) -> Ends:
        """The client's parts."""
        return Ends.of(self.model, self.cut)

    @property
    def tokens(self) -> list[list[int]]:
        """The texts, which nobody but the client has."""
        return [text.tokens_T.tolist() for text in self.texts]

    @cached_property
    def capture(self) -> Capture:
        """What passes the wire when the client takes one step on its texts."""
        client, wire = "client", WIRES[self.wire]
        of = {client: self.cut}
        middle = Middle.of(self.model, [self.cut])
        body = Body(middle, of, wire, LocalSettings(optimiser="sgd"), Adapters({client: ""}))
        body.load(_as_kept(self.params, middle.initial))
        leaves = {name: value[None].clone().requires_grad_() for name, value in self.params.items()}
        shield = Shield(replace(self.defences, guard=0.0), ("audit",))  # of a step that is no fake
        turn = Turn(self.ends, self.task, leaves, [list(self.texts)], Said((client,), 0, 0, wire), (), shield=shield)
        seeds = {client: (0,)}
        ahead = turn.ahead()
        answer, _ = body.forward(ahead, seeds)
        slopes = turn.loss(answer)
        back, _, _ = body.backward(slopes, seeds)
        read = [self._rows(one) for (one,) in (ahead, answer, slopes)]
        return Capture((*ahead, *answer, *slopes, *back), *read)

    def _rows(self, message: Message) -> tuple[Tensor, ...]:
        """Return what the receiver reads, text by text, without what fills texts up, which an attacker can tell."""
        rows = WIRES[self.wire].decode(message.packet, message.n_tokens, self.model.width, message.where)
        return tuple(
            one[: len(text.tokens_T)] for one, text in zip(rows.split(message.lengths), self.texts, strict=True)
        )


def states_of(part: Part, params: Tree, texts: Sequence[Encoded]) -> list[Tensor]:
    """Return the states [T, D] of texts behind a part, without gradients."""
    found = list[Tensor]()
    at_once = max(1, _TOKENS // max(len(text.tokens_T) for text in texts))
    for start in range(0, len(texts), at_once):
        some = texts[start : start + at_once]
        batch = pack([some], part.device, width=part.width)
        part.context.batch, part.context.seeds = batch, ()
        with torch.no_grad():
            rows = part.passed(params, batch)
        found += [rows[first : first + n].float() for first, n in batch.lines]
    return found


def _as_kept(params: Tree, initial: Tree) -> Slots:
    """Return the server's part of some parameters as a body takes it up."""
    row_P = flatten({name: params[name].cpu() for name in initial})
    none = torch.zeros(0)
    return {"rows": {"": row_P}, "first": {"": none}, "second": {"": none}, "steps": {"": torch.zeros(1)}}
