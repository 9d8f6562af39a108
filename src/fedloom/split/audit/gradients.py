"""T1 and T2: what a server reads off the gradient of an embedding or of logits, where it has them; here it has neither.

T1. Where the server has the embedding (as in FedBERT), its gradient has a row for each token of the batch and zeros for
all others: the set of tokens, without any search. Where the head is the same matrix every row has a gradient, and those
of the batch have the largest norms. T2. Where the server has the head or is sent logits, softmax less one-hot is below
zero at the label alone.

Both are computed as controls, on what such a server would hold; then it is counted what of that is among the messages
that pass: rows of D numbers, none of V, so that the attacks have no input.

Shapes: V vocabulary, D width, S supervised tokens.

Deviations: none; TAG and DLG search for what is read off here.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from fedloom.contracts.language import PackedBatch
from fedloom.models.packing import pack
from fedloom.split.audit.target import Target
from fedloom.split.cut import anatomy_of
from fedloom.split.parts import part_of
from fedloom.split.wire import WIRES

__all__ = ["OfEmbedding", "OfLogits", "embedding_gradient", "logit_gradient"]


@dataclass(frozen=True)
class OfEmbedding:
    """What the gradient of an embedding at the server would tell, and whether it is among the messages."""

    precision: float
    recall: float
    tied_hit_share: float
    """With a tied head: of as many largest rows as there are tokens, those that are tokens."""
    messages_with_it: int
    """Messages in which there is more, or less, than one row of D numbers a token, and so room for it."""


@dataclass(frozen=True)
class OfLogits:
    """What the gradient of logits would tell, and whether it is among the messages."""

    labels: float
    """Share of labels that are read off it."""
    messages_with_it: int
    """As of an embedding."""


def embedding_gradient(target: Target) -> OfEmbedding:
    """Return what T1 reads where the server has the embedding, and what of its input passes."""
    model = target.model
    anatomy = anatomy_of(model.module)
    table_VD = model.module.get_parameter(f"{anatomy.body}.{anatomy.tables[0]}.weight")
    batch = pack([target.texts], model.device, width=model.width)
    embedded_ND = functional.embedding(batch.tokens_N, table_VD).requires_grad_()
    loss, last_SD = _loss_from(target, batch, embedded_ND)
    (slope_ND,) = torch.autograd.grad(loss, [embedded_ND])
    grad_VD = torch.zeros_like(table_VD).index_add(0, batch.tokens_N, slope_ND.to(table_VD))
    tokens = set(batch.tokens_N.unique().tolist())
    found = set(grad_VD.abs().sum(1).nonzero().flatten().tolist())
    head_VD = model.module.get_submodule(anatomy.head).get_parameter("weight").detach()
    p_SV = (last_SD @ head_VD.T).float().softmax(1)
    p_SV[torch.arange(len(p_SV)), batch.targets_S] -= 1
    tied_VD = grad_VD + p_SV.to(table_VD).T @ last_SD
    largest = set(tied_VD.float().norm(dim=1).topk(len(tokens)).indices.tolist())
    return OfEmbedding(
        precision=len(found & tokens) / max(1, len(found)),
        recall=len(found & tokens) / len(tokens),
        tied_hit_share=len(largest & tokens) / len(tokens),
        messages_with_it=_odd_messages(target),
    )


def logit_gradient(target: Target) -> OfLogits:
    """Return what T2 reads where the server has logits, and what of its input passes."""
    model = target.model
    batch = pack([target.texts], model.device, width=model.width)
    model.context.batch = batch
    with torch.no_grad():
        logits_SV = model.token_logits(target.params, batch)
    logits_SV = logits_SV.float().requires_grad_()
    loss = functional.cross_entropy(logits_SV, batch.targets_S, reduction="sum")
    (slope_SV,) = torch.autograd.grad(loss, [logits_SV])
    right = slope_SV.argmin(1) == batch.targets_S
    return OfLogits(float(right.float().mean()), _odd_messages(target))


def _odd_messages(target: Target) -> int:
    """Return how many messages of a step hold something else than one row of D numbers for each token."""
    a_row = WIRES[target.wire].bytes_of(target.model.width)
    return sum(one.packet.numel() != one.n_tokens * a_row for one in target.capture.messages)


def _loss_from(target: Target, batch: PackedBatch, embedded_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed loss of the whole model from embeddings, and the last states [S, D] before the head."""
    whole = part_of(target.model, range(anatomy_of(target.model.module).n_blocks))
    whole.context.batch = batch
    given = replace(whole, given=embedded_ND)
    loss = given.token_losses(given.of(target.params), batch).sum()
    with torch.no_grad():
        last_ND = given.passed(target.params, batch)
    return loss, last_ND[batch.asked_S]
