"""Rows of several clients on their way through the server's blocks: which pass together, and what is kept of them.

A batch costs as many tokens as its clients times the longest of their parts, since parts are padded to that length
where their products are batched. With a limit of tokens clients of like length pass together, in several batches.

Shapes: K clients of a batch, N_k tokens of a client, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from fedloom.base.tree import Tree
from fedloom.contracts.language import Encoded, LanguageModel, PackedBatch
from fedloom.models.packing import pack

__all__ = ["Passing", "joined", "of_lengths", "together"]


@dataclass
class Passing:
    """One micro-batch of several clients on its way through the middle."""

    clients: tuple[str, ...]
    lengths: tuple[tuple[int, ...], ...]
    prompts: tuple[tuple[int, ...], ...]
    """Of each sequence the tokens of its prompt; of a causal model nobody says."""
    arrived: list[Tensor]
    """The states [N_k, D] that came, of each client."""
    leaves: Tree
    """Parameters [K, ...]."""
    left: list[Tensor] = field(default_factory=list[Tensor])
    """The states [N_k, D] behind the middle; empty where they are computed once more."""

    def of(self, clients: Sequence[str]) -> "Passing":
        """Return what is kept of some of the clients, where nothing but what came is."""
        at = [k for k, client in enumerate(self.clients) if client in clients]
        return replace(
            self,
            clients=tuple(self.clients[k] for k in at),
            lengths=tuple(self.lengths[k] for k in at),
            prompts=tuple(self.prompts[k] for k in at),
            arrived=[self.arrived[k] for k in at],
            leaves={name: leaf[at].detach().requires_grad_() for name, leaf in self.leaves.items()},
        )


def together(n_tokens: Sequence[int], most: int) -> list[list[int]]:
    """Return the places of clients that pass together, those of most tokens first; 0: all, in their order.

    >>> together([5, 90, 7, 100], 200)
    [[3, 1], [2, 0]]
    """
    if not most:
        return [list(range(len(n_tokens)))]
    found: list[list[int]] = []
    for k in sorted(range(len(n_tokens)), key=lambda k: -n_tokens[k]):
        fits = bool(found) and (len(found[-1]) + 1) * n_tokens[found[-1][0]] <= most
        if fits:
            found[-1].append(k)
        else:
            found.append([k])
    return found


def of_lengths(told: Sequence[tuple[Sequence[int], Sequence[int]]], model: LanguageModel) -> PackedBatch:
    """Return a batch of sequences of which nothing is known but how long they and their prompts are."""
    parts = [
        [Encoded(torch.zeros(n, dtype=torch.int32), torch.arange(n) >= prompt) for n, prompt in zip(*own, strict=True)]
        for own in told
    ]
    return pack(parts, model.device, width=model.width)


def joined(rows: Sequence[Tensor], batch: PackedBatch) -> Tensor:
    """Return each client's states [N_k, D] as one row [N, D], zeros where the batch has padding."""
    ends = [start for start, _ in batch.spans[1:]] + [batch.tokens_N.numel()]
    slack = [end - start - size for end, (start, size) in zip(ends, batch.spans, strict=True)]
    return torch.cat([functional.pad(one, (0, 0, 0, n)) if n else one for one, n in zip(rows, slack, strict=True)])
